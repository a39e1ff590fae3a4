"""A caller's wishes for its VM."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class GuestFile:
    """A file for the guest, written before the lease is given."""

    path: str
    data: bytes = attrs.field(repr=False)
    mode: int = 0o644


@attrs.frozen(kw_only=True)
class Wishes:
    """A caller's changes to the base VM; everything else stays as the base has it.

    They are applied at hand-out, so that no secret is ever part of a template.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    hostname: str = ""
    """Empty for the VM's id."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False, hash=False)
    """For every command that runs in the VM later."""
    files: tuple[GuestFile, ...] = ()

    @property
    def grows(self) -> bool:
        return self.vcpus is not None or self.memory_mib is not None
