"""What a producer makes VMs of: a machine whose accelerator is decided, and whose inputs are known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import attrs

from vmm.files import FileIdentity, identify
from vmm.spec import MachineSpec

WATCH_S: Final = 2.0
"""How often producers look whether their inputs are still the same files."""


@attrs.frozen(kw_only=True)
class ResolvedMachine:
    """A spec whose accelerator is decided, with the sentence that says why."""

    spec: MachineSpec
    reason: str
    fingerprint: str
    """Equal for machines whose base VMs are interchangeable."""
    inputs: tuple[tuple[Path, FileIdentity | None], ...] = ()
    """The files that it was resolved from, as they were then."""

    def is_current(self) -> bool:
        """Whether the inputs are still the same files. Blocks for a few stat calls."""
        return all(identify_if_there(path) == identity for path, identity in self.inputs)


ResolveMachine = Callable[[], Awaitable[ResolvedMachine]]
"""Decides the accelerator and completes the spec; may boot a VM to find out. Raises VmmError, OSError."""


def identify_if_there(path: Path) -> FileIdentity | None:
    """None for a file that is not there, or cannot be looked at."""
    try:
        return identify(path)
    except OSError:
        return None


def identify_all(paths: Iterable[Path]) -> tuple[tuple[Path, FileIdentity | None], ...]:
    return tuple((path, identify_if_there(path)) for path in paths)
