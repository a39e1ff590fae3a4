"""What a VM is to the layers above. Fulfilled by `vmm.qemu` and `vmm.simulated`; tests/contract runs over both."""

from __future__ import annotations

import enum
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import trio
from attrs.validators import max_len, optional

from vmm.room import WHOLE, Room

if TYPE_CHECKING:
    from vmm.errors import AgentProtocolError, QmpError


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
    """How a VM's process ended. Status and signal are None when it was not our child and the kernel told nothing."""

    status: int | None = None
    signal: int | None = None
    cause: str = ""
    """Why, as far as is known: "its guest powered off"."""
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
    """A text that may have ExitReports in it, up to where it quotes a QEMU."""
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
    """What names a process beyond the reuse of its pid, as long as the host runs."""

    pid: int
    start_time: int
    """Clock ticks from the host's boot to the start of the process: field 22 of /proc/pid/stat."""


RESEED_BYTES = 512
"""What Kata writes to its agent's ReseedRandomDev."""


@attrs.frozen(kw_only=True)
class Preparation:
    """One combined request that makes a VM unique and right before hand-out. None or zero leaves a thing alone."""

    entropy: bytes = b""
    """Bytes credited to the guest's RNG with RNDADDENTROPY, followed by RNDRESEEDCRNG; see RESEED_BYTES."""
    random_bytes: int = 0
    """So many bytes, up to 256, are drawn from the guest's RNG before anything else can and after the reseed, if any;
    the report has them."""
    wall_clock_ns: int | None = None
    """CLOCK_REALTIME to set, in ns since 1970."""
    hostname: str | None = None
    """1 to 64 ASCII letters, digits, '-', '.' and '_'."""
    machine_id: str | None = None
    """For /etc/machine-id, as systemd has it: 32 hexadecimal digits in lower case."""
    vm_uuid: str | None = None
    """What /sys/class/dmi/id/product_uuid shall show, in its usual form and in lower case. A clone's firmware has its
    template's, and its raw tables keep it."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Added to the default environment of commands that are started later in this VM, by whomever."""
    vcpus: int | None = None
    """At least so many must be online when the request is answered; see `Vm.grow`. What is plugged in is brought up,
    what the kernel has not noticed yet is waited for. Nothing more for 5 s is an AgentRequestError "ETIMEDOUT"."""
    memory_mib: int | None = None
    """As `vcpus`. It is the machine's memory that counts, in whole blocks of (mostly) 128 MiB: a machine that started
    with an odd size counts as if it had the rest of its last block."""


@attrs.frozen(kw_only=True)
class PreparationReport:
    """What the guest did, seen from inside, after the fact. Without an agent nobody looks: all is empty or zero."""

    reseeded: bool
    wall_clock_ns: int
    """The guest's clock right after the request."""
    hostname: str
    cpus_online: int
    memory_mib: int
    """MemTotal of the guest, which is less than what the machine has."""
    memory_online_mib: int | None = None
    """In whole blocks; what the kernel keeps for itself included. None if no memory was asked for."""
    random: bytes = b""
    """What was drawn from the RNG. Empty if nothing was asked for."""
    machine_id: str = ""
    """Empty if none was given."""
    vm_uuid: str = ""
    """Empty if none was given, or if the guest's kernel shows no UUID."""

    @property
    def was_seen(self) -> bool:
        """Whether anybody in the guest looked; a guest has at least one CPU."""
        return self.cpus_online > 0


@attrs.frozen(kw_only=True)
class GuestInfo:
    """What the agent says of its guest on readiness. Without an agent it is zero and empty."""

    agent_version: int
    kernel_release: str


MAX_GOT_FILE = 64 * 2**20
"""Bytes of a guest's file that the host takes into its memory, unless somebody says otherwise."""

MAX_GIVEN_STDIN = 256 * 1024
"""What a command may be given with its start; it travels as one piece."""


@attrs.frozen(kw_only=True)
class CommandSpec:
    """A command to run in the guest."""

    argv: Sequence[str]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Added to the guest's default environment, see `Preparation.environment`."""
    working_directory: str | None = None
    time_limit_s: float | None = None
    """The agent kills the command and all that it has started with SIGKILL after this, as far as it can: in a guest
    without cgroups it is the process group, over qemu-ga the process."""
    stdin: bytes | None = attrs.field(default=None, repr=False, validator=optional(max_len(MAX_GIVEN_STDIN)))
    """All that its stdin has, at most MAX_GIVEN_STDIN bytes. None: what `Command.send_stdin` sends."""
    room: Room = attrs.field(default=WHOLE, repr=False, eq=False)
    """For what nobody has read of its streams."""


class OutputStream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@attrs.frozen(kw_only=True)
class Output:
    stream: OutputStream
    data: bytes


@attrs.frozen(kw_only=True)
class CommandExit:
    """How a command ended: exactly one of `status` and `signal` is set."""

    status: int | None = None
    signal: int | None = None
    timed_out: bool = False
    """The time limit ended it (signal is SIGKILL then)."""
    out_of_memory: bool = False
    """The guest's kernel killed it because memory was short, or, where its status is 137 as a shell's, something while
    it ran. qemu-ga does not tell."""


class Command(Protocol):
    """A running command. Output is back-pressured: what is not received keeps the guest process waiting."""

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read. Ignored, as by a closed pipe, once its stdin is closed."""

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group. No-op once it has ended."""

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream; the last event is the CommandExit, after all output. Raises AgentError."""

    async def aclose(self) -> None:
        """Ends the command's interest in its process: kills the process group if it still runs. Never raises for a
        VM that is gone; under cancellation the kill is still sent."""


class Agent(Protocol):
    """The guest agent. Safe for concurrent use. Every method raises AgentError when the guest does not do it.

    An agent that cannot do a thing at all raises AgentRequestError with code "UNSUPPORTED": see docs/guide.md.
    """

    async def ping(self) -> GuestInfo:
        """Returns once the guest has shown that it is there."""

    async def prepare(self, preparation: Preparation) -> PreparationReport: ...

    async def start_command(self, spec: CommandSpec) -> Command:
        """The caller must `aclose` it.

        Raises AgentRequestError if it cannot be started: with the errno as its code, and with part "program" or
        "working_directory" if it was one of these. Raises NoRoomError, now or from the command's events, where the
        guest's agent takes more room than the spec has.
        """

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Creates or replaces a file, atomically for readers in the guest."""

    async def wait_broken(self) -> AgentProtocolError:
        """Returns once the guest has said what is not in the protocol: nothing can be asked of it any more."""

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        """What a file has. Raises AgentRequestError with code "EFBIG" if that is more than `limit` bytes."""


class VmTemplate(Protocol):
    """What clones are made of. Each maker of clones knows its own kind and takes no other."""

    @property
    def fingerprint(self) -> str: ...

    def check(self) -> None:
        """Raises TemplateError if it is not what it was when it was made or opened. Blocks for a few stat calls."""


class Shell(Protocol):
    """A process that holds a template's guest and has not run it yet. Whoever got it must end it."""

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    @property
    def generation(self) -> str:
        """What it was started for: it can take the guest of a template of this generation."""

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already."""

    async def stop(self) -> ExitReport:
        """Ends it and removes what it had on disk. Idempotent, shielded."""


class Survivor(Protocol):
    """The process of a VM whose service is gone; nothing is connected to it. Whoever got it must end it with `stop` or
    `detach`, or the VM that became of it.
    """

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    async def connect(self, *, nursery: trio.Nursery) -> Vm:
        """Runs the guest if it is paused, and returns its VM once the agent has answered. No time limit of its own.

        Whatever the earlier service's commands left running in the guest is ended. The connections' background tasks
        live in `nursery`. Raises VmExitedError, QmpError, AgentError; then, and under cancellation, nothing stays
        connected, and it may be tried again.
        """

    async def hold(self, *, nursery: trio.Nursery) -> Vm:
        """Pauses the guest if it runs, and returns its VM. Its agent is connected to when it is first asked.

        It wakes nobody, so that many can be held at little cost. No time limit of its own; otherwise as `connect`.
        """

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""

    async def stop(self) -> ExitReport:
        """As `Vm.stop`."""

    async def detach(self) -> None:
        """As `Vm.detach`."""


@attrs.frozen(kw_only=True)
class Growth:
    """What is added to a machine, or is to be."""

    vcpus: int
    memory_mib: int
    """In whole blocks of 128 MiB."""


class Vm(Protocol):
    """One VM process and its guest. Whoever got it must call `stop` or `detach` in the end, whatever happens."""

    @property
    def id(self) -> str: ...

    @property
    def uuid(self) -> str:
        """Its own, made from its id. A booted machine's firmware says it; a clone has to be told, by `prepare`."""

    @property
    def pid(self) -> int:
        """The process, or 0 where there is none (simulated)."""

    @property
    def identity(self) -> ProcessIdentity:
        """By which a later run of the service finds the process again."""

    @property
    def agent(self) -> Agent: ...

    @property
    def is_clone(self) -> bool:
        """Whether its guest was not booted but loaded: until it is reseeded, it draws the random numbers of others."""

    async def pause(self) -> None:
        """Stops the vCPUs (QMP `stop`). Idempotent."""

    async def resume(self) -> None:
        """Runs the vCPUs (QMP `cont`). Idempotent."""

    async def run_state(self) -> str:
        """What QEMU says of its guest, in QAPI's words for RunState ("running", "paused", ...), whatever the guest
        does. No time limit. Raises VmExitedError, QmpError.
        """

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        """Hot-adds what is missing to `vcpus` and `memory_mib` in all, and says what that was; more is left as it is.

        Counts what was added before, whoever did. Memory is rounded up to blocks of 128 MiB. The guest has to bring it
        all online: see `Preparation.vcpus`. Raises HotplugError, with nothing added if it is more than the machine's
        maximum; if QEMU refuses a part, what was added by then stays. VmExitedError.
        """

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""

    async def wait_broken(self) -> QmpError:
        """Returns once QEMU has said on its monitor what is not in the protocol, or more than any QEMU does: its guest
        has it, or has found how to make it, and nothing can be asked of the VM any more.
        """

    async def stop(self) -> ExitReport:
        """Ends the VM: QMP `quit`, bounded wait, SIGKILL, verify dead, then remove what it had on disk, never before.

        Idempotent. Runs to the end under cancellation (shielded, bounded by the escalation's own time limits).
        """

    async def disconnect(self) -> None:
        """Closes what is connected to the VM, so that somebody else can connect. Shielded.

        Of this object only `pid`, `identity`, `wait_exited`, `stop` and `detach` are used afterwards.
        """

    async def detach(self) -> None:
        """Lets go of the VM: it goes on as it is, for a later run of the service to adopt. Shielded.

        Nobody may be waiting in `wait_exited`, and nothing of this object is used afterwards.
        """
