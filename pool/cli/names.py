"""Types of arguments that name something a service has. A shell completes them.

What asks the service is imported only then: a command's start should not pay for it.
"""

from __future__ import annotations

import importlib
from typing import Final

import click
from click.shell_completion import CompletionItem

from pool.cli.words import Text

_SUGGESTIONS: Final = "pool.cli.completion.suggestions"


class _Name(Text):
    """A name that functions of `_SUGGESTIONS` know to complete."""

    def __init__(self, name: str, *suggestions: str, any_bytes: bool = False) -> None:
        super().__init__(any_bytes=any_bytes)
        self.name = name
        self._suggestions = suggestions

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        module = importlib.import_module(_SUGGESTIONS)
        return [item for name in self._suggestions for item in getattr(module, name)(ctx, incomplete)]


LEASE: Final = _Name("lease", "leases")
"""A lease by id or by name."""
PROFILE: Final = _Name("profile", "profiles")
VM: Final = _Name("vm", "vms")
LEASE_OR_PROFILE: Final = _Name("lease or profile", "leases", "profiles")
LEASE_OR_VM: Final = _Name("lease or vm", "leases", "vms")
PROCESS: Final = _Name("process", "processes")
"""A process of `vmpool start`, by id or by tag."""
GUEST_PATH: Final = _Name("guest path", "guest_paths", any_bytes=True)
GUEST_PLACE: Final = _Name("guest place", "guest_places", any_bytes=True)
"""LEASE, or LEASE:PATH."""
PLACE: Final = _Name("place", "guest_places", "host_paths", any_bytes=True)
"""LEASE:PATH, or a path of this host."""
