"""Errors of one VM.

    VmmError
    |- SpecError (ValueError)      a field of a spec is out of range
    |- MissingFileError            a file or program that the VM needs is missing
    |- BootError                   the VM did not come up
    |- StopError                   QEMU survived SIGKILL
    |- ConfinementError            QEMU cannot be confined as requested
    |- JailError                   a confined process cannot be set up
    |- AcceleratorError            the requested accelerator does not work on this host
    |- SnapshotError               device state could not be saved or loaded
    |- TemplateError               a template is missing, incomplete, or of another machine
    |- HotplugError                the machine cannot be given more CPUs or memory
    |- NotUniqueError              a VM repeats a value of another one
    |- AttachError                 a VM to take over does not exist
    |- VmExitedError               QEMU exited during a request
    |- VmSilentError               neither QEMU nor its guest answers
    |- QmpError                    QMP failed
    |  |- QmpCommandError          QEMU answered a command with an error
    |  `- QmpConnectionError       the QMP connection is closed or broke
    `- AgentError                  the guest agent failed
       |- AgentUnreachableError    no answer in time, or its channel is closed
       |- AgentProtocolError       it broke the protocol
       `- AgentRequestError        it refused a request, with a code and a message

Errors carry the offending state as attributes and, as notes, the evidence: QEMU's argv, the tail of its stderr, the
tail of the guest's console.
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
    """A file or program that the VM needs is missing or cannot be read."""

    def __init__(self, *, field: str, path: Path | str, remedy: str) -> None:
        super().__init__(f"{field}: {path} does not exist or cannot be read; {remedy}")
        self.field = field
        self.path = path
        self.remedy = remedy


class BootError(VmmError):
    """The VM did not become ready: `stage` is how far it came, `exit_report` how QEMU ended if it did by itself."""

    def __init__(self, *, stage: BootStage, reason: str, exit_report: ExitReport | None = None) -> None:
        super().__init__(f"VM did not come up (stage: {stage.value}): {reason}")
        self.stage = stage
        self.reason = reason
        self.exit_report = exit_report


class StopError(VmmError):
    """A VM's process survived SIGKILL. Its files are left alone."""

    def __init__(self, *, pid: int, limit_s: float, state: str) -> None:
        super().__init__(
            f"process {pid} still exists {limit_s:g} s after SIGKILL ({state}); it hangs in the kernel, usually "
            "because a disk or network file system does not answer: look at `dmesg`, then stop the VM again"
        )
        self.pid = pid
        self.limit_s = limit_s
        self.state = state


class ConfinementError(VmmError):
    """QEMU cannot be confined as requested. `what` is the setting, `reason` a sentence."""

    def __init__(self, *, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what}: {reason}; {remedy}")
        self.what = what
        self.reason = reason
        self.remedy = remedy


class JailError(VmmError):
    """A process could not be set up for QEMU: `stage` is the failed step, `errno` the kernel's, or 0."""

    def __init__(self, *, stage: str, errno: int, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.errno = errno
        self.reason = reason


class AcceleratorError(VmmError):
    """The requested accelerator does not work on this host. `reason` is a sentence."""

    def __init__(self, *, accelerator: str, reason: str, remedy: str) -> None:
        super().__init__(f"accelerator {accelerator} cannot be used: {reason}; {remedy}")
        self.accelerator = accelerator
        self.reason = reason
        self.remedy = remedy


class SnapshotError(VmmError):
    """QEMU could not save or load a device state. `what` is the attempted step, `reason` QEMU's or the time limit."""

    def __init__(self, *, what: str, reason: str) -> None:
        super().__init__(f"{what} failed: {reason}")
        self.what = what
        self.reason = reason


class TemplateError(VmmError):
    """No template can be cloned; `reason` says why, `directory` is its place, if known."""

    def __init__(self, *, reason: str, directory: Path | None = None) -> None:
        super().__init__(f"template: {reason}" if directory is None else f"template {directory}: {reason}")
        self.directory = directory
        self.reason = reason


class LockHeldError(VmmError):
    """A live process holds a lock file; `pid` is the content of the file."""

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
    """A VM has `what` of the VM `other`: they are copies of each other. It must not be handed out."""

    def __init__(self, *, vm_id: str, what: str, other: str) -> None:
        super().__init__(f"{vm_id} is not unique: its {what} are those of {other}; check that its guest is reseeded")
        self.vm_id = vm_id
        self.what = what
        self.other = other


class AttachError(VmmError):
    """A VM to take over does not exist."""

    def __init__(self, *, vm_id: str, reason: str) -> None:
        super().__init__(f"{vm_id} cannot be taken over: {reason}")
        self.vm_id = vm_id
        self.reason = reason


class VmExitedError(VmmError):
    """QEMU exited during a request. `reason` is its exit report in words."""

    def __init__(self, *, vm_id: str, reason: str) -> None:
        super().__init__(f"{vm_id}: QEMU is gone: {reason}")
        self.vm_id = vm_id
        self.reason = reason


class VmSilentError(VmmError):
    """Neither QEMU nor its guest answers: QEMU is stopped, or hangs."""

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
    """The agent broke the protocol; its channel is not used any more."""


OBSTACLES: Final[Mapping[str, Obstacle]] = {
    **dict.fromkeys(
        ("EAGAIN", "EBUSY", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"),
        Obstacle.EXHAUSTED,
    ),
    **dict.fromkeys(("EIO", "ETIMEDOUT", "UNSUPPORTED"), Obstacle.UNABLE),
}
"""By an AgentRequestError's code; all other codes are faults of the request."""


class NoRoomError(VmmError):
    """A command would hold more of the host's memory than its share; see `vmm.words.commands.Room`."""


class AgentRequestError(AgentError):
    """The agent refused a request.

    `code` is a symbolic errno name ("ENOENT", "ETIMEDOUT", ...) or one of the agent's own: "UNSUPPORTED",
    "BAD_REQUEST". `part` is the refused part of the request, if known: a field of a Preparation; of a command "program"
    or "working_directory".
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
