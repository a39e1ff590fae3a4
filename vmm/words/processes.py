"""A VM's process: how far it came, its identity, and how it ended."""

from __future__ import annotations

import enum
import signal

import attrs


class BootStage(enum.Enum):
    """How far a VM has come; the stages follow each other."""

    SPAWN = "spawn"
    """Directory, sockets, process."""
    QMP = "qmp"
    """QEMU has answered."""
    GUEST = "guest"
    """The guest agent has answered: the VM is ready."""


@attrs.frozen(kw_only=True)
class ExitReport:
    """How a VM's process ended. Status and signal are None if the process was not a child and they are unknown."""

    status: int | None = None
    signal: int | None = None
    cause: str = ""
    """The cause, as far as is known: "its guest powered off"."""
    stderr_tail: str = ""
    console_tail: str = attrs.field(default="", repr=False)
    """The end of the guest's console, of a VM that ended by itself."""

    def __str__(self) -> str:
        if self.signal is not None:
            how = f"killed by signal {self.signal}{_name_of(self.signal)}"
        elif self.status is not None:
            how = f"exit status {self.status}"
        else:
            how = "exit status unknown"
        if self.cause:
            how = f"{self.cause} ({how})"
        return f"{how}{_SAID}{self.stderr_tail}" if self.stderr_tail else how


_SAID = "; QEMU said: "


def without_output(text: str) -> str:
    """A text that may quote ExitReports, up to the first output of QEMU."""
    return text.partition(_SAID)[0]


def _name_of(number: int) -> str:
    if number == signal.SIGSYS:
        return " (SIGSYS): it asked the kernel for something that its sandbox forbids"
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""  # a real-time signal


@attrs.frozen(kw_only=True)
class ProcessIdentity:
    """Identifies a process even after its pid is reused, as long as the host runs."""

    pid: int
    start_time: int
    """Clock ticks from the host's boot to the start of the process: field 22 of /proc/pid/stat."""
