"""The faults of simulated VMs, and plans of which VM has which."""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Mapping, Sequence
from random import Random

import attrs

from vmm.words.processes import BootStage


class Moment(enum.Enum):
    """Points in a VM's life at which a fault strikes, the first time that the VM reaches it."""

    READY = "ready"
    PAUSED = "paused"
    RESUMED = "resumed"
    PREPARED = "prepared"


@attrs.frozen(kw_only=True)
class BootFails:
    """Launch raises BootError."""

    stage: BootStage = BootStage.GUEST
    reason: str = "QEMU is gone: exit status 1"
    after_s: float = 0.0


@attrs.frozen
class BootHangs:
    """Launch does not return."""


@attrs.frozen(kw_only=True)
class Exits:
    """The process dies of a signal, `after_s` after a moment."""

    when: Moment
    after_s: float = 0.0
    signal: int = signal.SIGSEGV


@attrs.frozen(kw_only=True)
class AgentGoesMute:
    """From a moment on the agent answers nothing. The process lives."""

    when: Moment


@attrs.frozen(kw_only=True)
class Hangs:
    """From a moment on the process does nothing, like a stopped one: neither QEMU nor its guest answers."""

    when: Moment


@attrs.frozen(kw_only=True)
class AgentBreaksProtocol:
    """At a moment the guest breaks the protocol. The process lives."""

    when: Moment


@attrs.frozen(kw_only=True)
class PrepareFails:
    """The agent refuses to prepare its guest."""

    code: str = "EPERM"
    message: str = "Operation not permitted"
    part: str = ""
    """The field of the preparation that it refuses if requested. Empty: every preparation."""


@attrs.frozen(kw_only=True)
class FilesFail:
    """The agent refuses every file."""

    code: str = "ENOSPC"
    message: str = "No space left on device"


@attrs.frozen(kw_only=True)
class CommandsFail:
    """The agent starts no command."""

    code: str = "EAGAIN"
    message: str = "Resource temporarily unavailable"
    part: str = "program"


@attrs.frozen(kw_only=True)
class PrepareIsSlow:
    delay_s: float


@attrs.frozen(kw_only=True)
class StopIsSlow:
    delay_s: float


Fault = (
    BootFails
    | BootHangs
    | Exits
    | AgentGoesMute
    | Hangs
    | AgentBreaksProtocol
    | PrepareFails
    | FilesFail
    | CommandsFail
    | PrepareIsSlow
    | StopIsSlow
)

FaultPlan = Callable[[int], Sequence[Fault]]
"""The faults of the n-th VM that a host launches, counted from 0."""


def no_faults(_number: int) -> Sequence[Fault]:
    """The plan without faults."""
    return ()


def scripted(faults: Mapping[int, Sequence[Fault]]) -> FaultPlan:
    """A plan of the given faults by the VMs' numbers."""
    return lambda number: faults.get(number, ())


def random_faults(random: Random, probabilities: Mapping[Fault, float]) -> FaultPlan:
    """A plan that draws each fault independently; the same seed gives the same plan for VMs launched in order."""

    def draw(_number: int) -> Sequence[Fault]:
        return tuple(fault for fault, probability in probabilities.items() if random.random() < probability)

    return draw
