"""The machine that a producer makes VMs of, with its accelerator chosen and its input files identified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import attrs

from vmm.files import FileIdentity, identify
from vmm.spec import MachineSpec

WATCH_S: Final = 2.0
"""Between a producer's checks that its inputs are still the same files."""


@attrs.frozen(kw_only=True)
class ResolvedMachine:
    """A spec whose accelerator is chosen, with the reason in a sentence."""

    spec: MachineSpec
    reason: str
    fingerprint: str
    """Equal for machines whose base VMs are interchangeable."""
    inputs: tuple[tuple[Path, FileIdentity | None], ...] = ()
    """The files that the machine was resolved from, as they were then."""

    def is_current(self) -> bool:
        """Whether the inputs are still the same files. Blocks for a few stat calls."""
        return all(identify_if_there(path) == identity for path, identity in self.inputs)


ResolveMachine = Callable[[], Awaitable[ResolvedMachine]]
"""Chooses the accelerator and completes the spec; may boot a VM to try it. Raises VmmError, OSError."""


def identify_if_there(path: Path) -> FileIdentity | None:
    """None for a file that does not exist or cannot be read."""
    try:
        return identify(path)
    except OSError:
        return None


def identify_all(paths: Iterable[Path]) -> tuple[tuple[Path, FileIdentity | None], ...]:
    return tuple((path, identify_if_there(path)) for path in paths)
