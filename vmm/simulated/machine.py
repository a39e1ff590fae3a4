"""The simulated process and its guest."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio
from trio_util import AsyncValue

from vmm.capacity import Capacity
from vmm.errors import AgentProtocolError, AgentUnreachableError, VmExitedError
from vmm.simulated.faults import AgentBreaksProtocol, AgentGoesMute, Exits, Fault, Hangs, Moment
from vmm.simulated.file_system import FileSystem
from vmm.simulated.network import Network
from vmm.spec import MachineSpec
from vmm.words.preparation import Growth
from vmm.words.processes import ExitReport, ProcessIdentity
from vmm.words.usage import Usage

NS = 1_000_000_000
MIB = 2**20
EPOCH_NS = 1_700_000_000 * NS
"""The guests' time at the start of trio's clock."""


KERNEL_MEMORY_MIB = 32
"""Memory that a guest's kernel keeps for itself; MemTotal does not include it."""

BROKEN = "the guest agent sent garbage: simulated"

MACHINE_ID = "/etc/machine-id"
VM_UUID = "/sys/class/dmi/id/product_uuid"


def simulated_uuid(vm_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, vm_id))


class Power(enum.Enum):
    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


@attrs.frozen(kw_only=True)
class MachineState:
    power: Power = Power.RUNNING
    mute: bool = False
    hung: bool = False
    broken: bool = False
    """The guest has broken the protocol of its current session."""


class Machine:
    """State shared by a simulated VM, its agent and its commands. Background tasks live in `nursery`; none raises."""

    def __init__(
        self,
        spec: MachineSpec,
        *,
        vm_id: str,
        identity: ProcessIdentity,
        faults: Sequence[Fault],
        nursery: trio.Nursery,
    ) -> None:
        self.spec = spec
        self.vm_id = vm_id
        self.identity = identity
        self.faults = faults
        self.state: AsyncValue[MachineState] = AsyncValue(MachineState())
        self.exit_report: ExitReport | None = None
        self.is_clone = False
        self.hostname = "vmpool"
        self.entropy: list[bytes] = []
        """The entropy that the guest was reseeded with, in order."""
        self.clock_offset_ns = EPOCH_NS
        self.clock_moved_ns = 0
        """By how much the clock was moved from within since it was last set from outside."""
        self._booted_at = trio.current_time()
        self.online = Capacity.of(spec)
        """The part of the plugged-in capacity that the guest uses."""
        self.plugged: AsyncValue[Capacity] = AsyncValue(self.online)
        self.environment: dict[str, str] = {}
        """Variables of commands beside the default."""
        self.last_process = 0
        """Number of the process that was started last."""
        self.commands: dict[int, Any] = {}
        """Programs that belong to a request, each a `running.Running`."""
        self.detached: dict[int, Any] = {}
        """Programs that belong to the VM, each a `processes.Detached`, in the order of their start."""
        self.files = FileSystem(clock=lambda: self.wall_clock_ns)
        self.files[VM_UUID] = f"{simulated_uuid(vm_id)}\n".encode()
        self.network = Network()
        self.console = b"[    0.000000] Linux version simulated\n"
        """The guest's output to its console."""
        self.hung_at = -math.inf
        """When the process last began to hang."""
        self._drawn = 0
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._lasting: set[trio.CancelScope] = set()
        self._reached: set[Moment] = set()
        self._deaths: list[tuple[float, ExitReport]] = []
        """Pending deaths: when, and how. They strike in any later session, too."""

    @property
    def wall_clock_ns(self) -> int:
        return self.clock_offset_ns + int(trio.current_time() * NS)

    def set_wall_clock(self, now_ns: int) -> None:
        self.clock_offset_ns = now_ns - int(trio.current_time() * NS)
        self.clock_moved_ns = 0

    def move_clock(self, by_ns: int) -> None:
        """As a program in the guest may, with `date -s`."""
        self.clock_offset_ns += by_ns
        self.clock_moved_ns += by_ns

    def lose_time(self, lost_ns: int) -> None:
        """As a guest does that stands still: all its clocks stand."""
        self.clock_offset_ns -= lost_ns

    def usage(self) -> Usage:
        """Of a guest whose programs use nothing."""
        uptime_ms = int((trio.current_time() - self._booted_at) * 1000)
        memory, disk = self.mem_total_mib * MIB, self.mem_total_mib * MIB // 2
        return Usage(
            cpus_online=self.online.vcpus,
            cpu_busy_ms=0,
            cpu_idle_ms=uptime_ms * self.online.vcpus,
            memory_total_bytes=memory,
            memory_available_bytes=memory,
            processes=1,
            load_1m=0.0,
            disk_total_bytes=disk,
            disk_available_bytes=disk,
            uptime_ms=uptime_ms,
            wall_clock_ns=self.wall_clock_ns,
        )

    @property
    def mem_total_mib(self) -> int:
        return self.online.memory_mib - KERNEL_MEMORY_MIB

    @property
    def visible_files(self) -> dict[str, bytes]:
        """The files that a program in the guest can read right now."""
        return self.files.contents() | {
            "/proc/cpuinfo": b"".join(b"processor\t: %d\n" % number for number in range(self.online.vcpus)),
            "/proc/meminfo": b"MemTotal: %d kB\n" % (self.mem_total_mib * 1024),
        }

    def random(self, count: int) -> bytes:
        """The next bytes of the guest's RNG, the same for machines with the same entropy, like a template's clones."""
        self._drawn += 1
        return hashlib.shake_256(b"".join(self.entropy) + self._drawn.to_bytes(8, "big")).digest(count)

    def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        """See `vmm.contract.Vm.grow`."""
        self.check_alive()
        growth: Growth = self.plugged.value.growth(vcpus=vcpus, memory_mib=memory_mib)
        self.plugged.value = self.plugged.value.grown(growth)
        return growth

    def bring_online(self, *, cpus: bool, memory: bool) -> None:
        plugged = self.plugged.value
        self.online = attrs.evolve(
            self.online,
            vcpus=plugged.vcpus if cpus else self.online.vcpus,
            memory_mib=plugged.memory_mib if memory else self.online.memory_mib,
        )

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Runs a task that ends, at the latest, with the machine."""

        async def until_exit() -> None:
            with contextlib.suppress(AgentUnreachableError, AgentProtocolError), trio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    await task()
                finally:
                    self._scopes.discard(scope)

        self._nursery.start_soon(until_exit)

    def start_lasting(self, task: Callable[[], Awaitable[None]]) -> None:
        """Runs a task that ends with the machine, whatever service it has: it lives in no nursery of theirs."""

        async def until_exit() -> None:
            with contextlib.suppress(AgentUnreachableError, AgentProtocolError), trio.CancelScope() as scope:
                self._lasting.add(scope)
                try:
                    await task()
                finally:
                    self._lasting.discard(scope)

        trio.lowlevel.spawn_system_task(until_exit, name=f"a process of {self.vm_id}")

    def begin_session(self, nursery: trio.Nursery) -> None:
        """Begins a service's session: its tasks live in `nursery`, and the commands of earlier sessions are ended."""
        for scope in self._scopes:
            scope.cancel(reason="another session of the simulated agent has begun")
        self.network.sever()
        self._nursery = nursery
        self.state.value = attrs.evolve(self.state.value, broken=False)
        for when, report in self._deaths:
            self.start_soon(partial(self._die, when, report))

    def power(self, power: Power) -> None:
        """Pauses or resumes. Raises VmExitedError."""
        self.check_alive()
        self.state.value = attrs.evolve(self.state.value, power=power)
        self.reach(Moment.PAUSED if power is Power.PAUSED else Moment.RESUMED)

    def break_protocol(self) -> None:
        """The guest breaks the protocol, and is ignored until the next session."""
        self.state.value = attrs.evolve(self.state.value, broken=True)
        self._end_tasks("the simulated guest broke the protocol")

    async def wait_broken(self) -> AgentProtocolError:
        """See `vmm.contract.Agent`."""
        await self.state.wait_value(lambda state: state.broken)
        return AgentProtocolError(BROKEN)

    def mute(self) -> None:
        """The agent stops answering."""
        self.state.value = attrs.evolve(self.state.value, mute=True)

    def hang(self, *, hung: bool = True) -> None:
        """The process stops doing anything, like a stopped one; or goes on."""
        if hung and not self.state.value.hung:
            self.hung_at = trio.current_time()
        self.state.value = attrs.evolve(self.state.value, hung=hung)

    def exit(self, report: ExitReport) -> None:
        """The process dies. Only the first call counts."""
        if self.exit_report is None:
            self.exit_report = report
            self.state.value = attrs.evolve(self.state.value, power=Power.DEAD)
            self._end_tasks("the simulated VM is dead")
            for scope in self._lasting:
                scope.cancel(reason="the simulated VM is dead")

    def _end_tasks(self, reason: str) -> None:
        for scope in self._scopes:
            scope.cancel(reason=reason)
        self.network.sever()

    def check_alive(self) -> None:
        """Raises VmExitedError if the process is dead."""
        if self.exit_report is not None:
            raise VmExitedError(vm_id=self.vm_id, reason=str(self.exit_report))

    async def guest_runs(self) -> None:
        """Waits until the guest executes and its agent answers. Raises AgentUnreachableError if the machine dies."""
        await trio.lowlevel.checkpoint()
        state = await self.state.wait_value(
            lambda state: (
                state.power is Power.DEAD
                or state.broken
                or (state.power is Power.RUNNING and not state.mute and not state.hung)
            )
        )
        if state.power is Power.DEAD or state.broken:
            raise self.unreachable()

    def check_answers(self) -> None:
        """Raises AgentUnreachableError if the machine is dead, AgentProtocolError if its guest broke the protocol."""
        if self.state.value.power is Power.DEAD or self.state.value.broken:
            raise self.unreachable()

    async def or_its_end(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Waits, unless the machine dies or its guest breaks the protocol: see `check_answers`."""
        async with trio.open_nursery() as nursery:

            async def until_end() -> None:
                await self.state.wait_value(lambda state: state.power is Power.DEAD or state.broken)
                nursery.cancel_scope.cancel(reason="the simulated guest is gone")

            nursery.start_soon(until_end)
            await wait()
            nursery.cancel_scope.cancel(reason="it has come")
        self.check_answers()

    async def process_runs(self) -> None:
        """Waits until the process takes requests. Raises VmExitedError if it is dead, or dies."""
        await trio.lowlevel.checkpoint()
        await self.state.wait_value(lambda state: state.power is Power.DEAD or not state.hung)
        self.check_alive()

    async def look(self) -> None:
        """Waits as a ping would. Raises AgentUnreachableError if the machine is dead."""
        await trio.lowlevel.checkpoint()
        if self.exit_report is not None:
            raise self.unreachable()

    def unreachable(self) -> AgentUnreachableError | AgentProtocolError:
        if self.exit_report is None and self.state.value.broken:
            return AgentProtocolError(BROKEN)
        return AgentUnreachableError(f"{self.vm_id}: the agent's channel is closed: {self.exit_report}")

    def reach(self, moment: Moment) -> None:
        """Lets the faults of this moment happen."""
        if moment in self._reached:
            return
        self._reached.add(moment)
        for fault in self.faults:
            match fault:
                case Exits(when=when, after_s=after_s, signal=number) if when is moment:
                    self._exit_later(after_s, ExitReport(signal=number, stderr_tail="simulated fault"))
                case AgentGoesMute(when=when) if when is moment:
                    self.mute()
                case Hangs(when=when) if when is moment:
                    self.hang()
                case AgentBreaksProtocol(when=when) if when is moment:
                    self.break_protocol()

    def _exit_later(self, after_s: float, report: ExitReport) -> None:
        when = trio.current_time() + after_s
        self._deaths.append((when, report))
        self.start_soon(partial(self._die, when, report))

    async def _die(self, when: float, report: ExitReport) -> None:
        await trio.sleep_until(when)
        self.exit(report)
