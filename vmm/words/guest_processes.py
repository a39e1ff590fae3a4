"""Processes in the guest that outlive their caller."""

from __future__ import annotations

from typing import Final

import attrs

from vmm.words.commands import CommandExit, OutputStream

KEPT_BYTES: Final = 2**20
"""Of each stream, unless less is asked for; also the most."""

MAX_ENDED: Final = 256
"""Ended processes that a guest keeps; the oldest go first."""

MAX_TAG_BYTES: Final = 128


@attrs.frozen(kw_only=True)
class ProcessRef:
    """A process by its number, or by its tag."""

    process_id: int = 0
    tag: str = ""


@attrs.frozen(kw_only=True)
class Positions:
    """Bytes of each stream before the first that is wanted."""

    stdout: int = 0
    stderr: int = 0


@attrs.frozen(kw_only=True)
class ProcessInfo:
    process_id: int
    """Of the VM; never used again."""
    pid: int
    tag: str = ""
    argv: tuple[str, ...] = attrs.field(repr=False)
    """Cut, with "..." at the end, after 1024 characters."""
    working_directory: str
    user: str = ""
    terminal: bool = False
    attached: bool = False
    """It ends with the request that started it."""
    started_ns: int
    """By the guest's clock, since 1970."""
    exit: CommandExit | None = None
    stdout_end: int = 0
    stdout_kept_from: int = 0
    stderr_end: int = 0
    stderr_kept_from: int = 0


@attrs.frozen(kw_only=True)
class ProcessOutput:
    stream: OutputStream
    position: int
    """Of the first byte. More than the end of the piece before: so many bytes were lost."""
    data: bytes = attrs.field(repr=False)
