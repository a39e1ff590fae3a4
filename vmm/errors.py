"""Errors of one VM.

    VmmError
    |- SpecError (ValueError)      a field of a spec is out of range
    |- MissingFileError            a file or program the VM needs is not there
    |- BootError                   the VM did not come up
    |- StopError                   QEMU is still there after SIGKILL
    |- ConfinementError            QEMU cannot be confined as it is asked for
    |- JailError                   a process cannot be set up as it is confined
    |- AcceleratorError            the accelerator that was asked for does not work on this host
    |- SnapshotError               device state could not be saved or loaded
    |- TemplateError               a template is not there, not whole, or of something else
    |- HotplugError                the machine cannot be given more CPUs or memory
    |- NotUniqueError              a VM shows what another one showed before
    |- AttachError                 there is no VM to take over where one should be
    |- VmExitedError               QEMU is gone while something was asked of it
    |- VmSilentError               QEMU is there, and nothing in it answers
    |- QmpError                    QMP failed
    |  |- QmpCommandError          QEMU answered a command with an error
    |  `- QmpConnectionError       the QMP connection is closed or broke
    `- AgentError                  the guest agent failed
       |- AgentUnreachableError    no answer in time, or its channel is closed
       |- AgentProtocolError       it said something that is not in the protocol
       `- AgentRequestError        it refused a request, with a code and a message

Errors carry the offending state as attributes and, as notes, the evidence a person needs: QEMU's argv, the tail of
its stderr, the tail of the guest's console.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vmm.words.facts import Obstacle
from vmm.words.processes import BootStage, ExitReport


class VmmError(Exception):
    """Base of everything that `vmm` raises on purpose."""


class SpecError(VmmError, ValueError):
    """A field of a spec is out of range."""

    def __init__(self, *, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field} = {value!r}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class MissingFileError(VmmError):
    """A file or program that the VM needs is not there, or cannot be read."""

    def __init__(self, *, field: str, path: Path | str, remedy: str) -> None:
        super().__init__(f"{field}: {path} does not exist or cannot be read; {remedy}")
        self.field = field
        self.path = path
        self.remedy = remedy


class BootError(VmmError):
    """The VM did not become ready: `stage` says how far it came, `exit_report` how QEMU ended if it did by itself."""

    def __init__(self, *, stage: BootStage, reason: str, exit_report: ExitReport | None = None) -> None:
        super().__init__(f"VM did not come up (stage: {stage.value}): {reason}")
        self.stage = stage
        self.reason = reason
        self.exit_report = exit_report


class StopError(VmmError):
    """A VM's process is still there after SIGKILL. What it has on disk is left alone."""

    def __init__(self, *, pid: int, limit_s: float, state: str) -> None:
        super().__init__(
            f"process {pid} is still there {limit_s:g} s after SIGKILL ({state}); it hangs in the kernel, "
            "mostly for a disk or network file system that does not answer: look at `dmesg`, then stop the VM again"
        )
        self.pid = pid
        self.limit_s = limit_s
        self.state = state


class ConfinementError(VmmError):
    """QEMU cannot be confined as it is asked for. `what` is the setting, `reason` says why not, in a sentence."""

    def __init__(self, *, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what}: {reason}; {remedy}")
        self.what = what
        self.reason = reason
        self.remedy = remedy


class JailError(VmmError):
    """A process could not be set up for QEMU: `stage` says at what, `errno` is the kernel's, or 0."""

    def __init__(self, *, stage: str, errno: int, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.errno = errno
        self.reason = reason


class AcceleratorError(VmmError):
    """The accelerator that was asked for does not work on this host. `reason` says why, in a sentence."""

    def __init__(self, *, accelerator: str, reason: str, remedy: str) -> None:
        super().__init__(f"accelerator {accelerator} cannot be used: {reason}; {remedy}")
        self.accelerator = accelerator
        self.reason = reason
        self.remedy = remedy


class SnapshotError(VmmError):
    """QEMU could not save or load a device state. `what` was attempted, `reason` is QEMU's or the time limit's."""

    def __init__(self, *, what: str, reason: str) -> None:
        super().__init__(f"{what} failed: {reason}")
        self.what = what
        self.reason = reason


class TemplateError(VmmError):
    """There is no template that can be cloned; `reason` says why not, `directory` where it should be, if known."""

    def __init__(self, *, reason: str, directory: Path | None = None) -> None:
        super().__init__(f"template: {reason}" if directory is None else f"template {directory}: {reason}")
        self.directory = directory
        self.reason = reason


class LockHeldError(VmmError):
    """A live process holds a lock file; `pid` is what it wrote there."""

    def __init__(self, *, lock: Path, pid: str) -> None:
        super().__init__(f"process {pid or '(unknown)'} holds {lock}; stop it, or choose another place")
        self.lock = lock
        self.pid = pid


class HotplugError(VmmError):
    """The machine cannot be given `what`; `reason` is its limit or QEMU's words. `field` is "vcpus" or "memory_mib"."""

    def __init__(self, *, field: str, what: str, reason: str) -> None:
        super().__init__(f"cannot add {what}: {reason}")
        self.field = field
        self.what = what
        self.reason = reason


class NotUniqueError(VmmError):
    """A VM shows `what` of the VM `other`: they are copies of each other. It must not be handed out."""

    def __init__(self, *, vm_id: str, what: str, other: str) -> None:
        super().__init__(f"{vm_id} is not unique: its {what} are those of {other}; is its guest reseeded?")
        self.vm_id = vm_id
        self.what = what
        self.other = other


class AttachError(VmmError):
    """There is no VM to take over where one should be."""

    def __init__(self, *, vm_id: str, reason: str) -> None:
        super().__init__(f"{vm_id} cannot be taken over: {reason}")
        self.vm_id = vm_id
        self.reason = reason


class VmExitedError(VmmError):
    """QEMU is gone while something was asked of it. `reason` is its exit report in words."""

    def __init__(self, *, vm_id: str, reason: str) -> None:
        super().__init__(f"{vm_id}: QEMU is gone: {reason}")
        self.vm_id = vm_id
        self.reason = reason


class VmSilentError(VmmError):
    """QEMU is there, and neither it nor its guest answers: it is stopped, or hangs."""

    def __init__(self, *, vm_id: str, checks: int, interval_s: float) -> None:
        super().__init__(
            f"{vm_id}: neither QEMU nor its guest has answered {checks} checks in a row, one every {interval_s:g} s; "
            "QEMU hangs, or was stopped"
        )
        self.vm_id = vm_id
        self.checks = checks
        self.interval_s = interval_s


class QmpError(VmmError):
    """Base of the QMP errors."""


class QmpCommandError(QmpError):
    """QEMU answered a command with an error. `error_class` and `description` are QEMU's own words."""

    def __init__(self, *, command: str, error_class: str, description: str) -> None:
        super().__init__(f"QMP {command}: {error_class}: {description}")
        self.command = command
        self.error_class = error_class
        self.description = description


class QmpConnectionError(QmpError):
    """The QMP connection is closed, broke, or its peer does not speak QMP."""


class AgentError(VmmError):
    """Base of the guest agent errors."""


class AgentUnreachableError(AgentError):
    """The agent did not answer in time, or its channel is closed."""


class AgentProtocolError(AgentError):
    """The agent said something that is not in the protocol; its channel is not used any further."""


OBSTACLES: Final[Mapping[str, Obstacle]] = {
    **dict.fromkeys(
        ("EAGAIN", "EBUSY", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"),
        Obstacle.EXHAUSTED,
    ),
    **dict.fromkeys(("EIO", "ETIMEDOUT", "UNSUPPORTED"), Obstacle.UNABLE),
}
"""By an AgentRequestError's code; all others are the request's."""


class NoRoomError(VmmError):
    """What a command holds in the host's memory would be more than it may, see `vmm.room`."""


class AgentRequestError(AgentError):
    """The agent refused a request.

    `code` is a symbolic errno name ("ENOENT", "ETIMEDOUT", ...) or one of the agent's own: "UNSUPPORTED",
    "BAD_REQUEST". `part` says what of the request it was about, if that is known: a field of a Preparation; of a
    command "program" or "working_directory".
    """

    def __init__(self, *, request: str, code: str, message: str, part: str = "") -> None:
        super().__init__(f"guest agent refused {request}: {code}: {message}")
        self.request = request
        self.code = code
        self.message = message
        self.part = part

    @property
    def obstacle(self) -> Obstacle:
        return OBSTACLES.get(self.code, Obstacle.REQUEST)
