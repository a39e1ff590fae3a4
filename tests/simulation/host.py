"""The host on which the simulated service runs, as one run of it after the other finds it.

When the service is killed, the next run gets another `Host` and another `Disk`. What the tasks of the dead run still
do, until they are all cancelled, they do to theirs, and nobody sees it.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from tests.simulation.plan import Plan, Randomness, Trouble
from vmm.simulated import (
    AgentBreaksProtocol,
    AgentGoesMute,
    BootFails,
    BootHangs,
    Exits,
    Fault,
    Hangs,
    Moment,
    PrepareFails,
    PrepareIsSlow,
    SimulatedHost,
    SimulatedSurvivor,
    SimulatedVm,
    StopIsSlow,
)
from vmm.simulated.disk import DiskFault, SimulatedDisk, Step
from vmm.simulated.machine import Machine
from vmm.spec import MachineSpec
from vmm.words.processes import ProcessIdentity

VMS: Final = Path("/run/vms")

_HAPPENS: Final = 0.15

_TROUBLED_PREPARATIONS: Final[Sequence[Fault]] = (PrepareFails(), PrepareIsSlow(delay_s=7.0))
"""How often a kind of fault that a seed has happens to a VM."""


@attrs.define(eq=False, kw_only=True)
class Weather:
    """What goes wrong at the moment, for all runs of the service; in quiet times nothing does."""

    plan: Plan
    randomness: Randomness
    quiet: bool = False
    disk_fault: DiskFault | None = None
    """What every second step of the disk comes to."""
    low_memory: bool = False
    _disk: Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._disk = self.randomness.of("disk")

    def has(self, trouble: Trouble) -> bool:
        return not self.quiet and trouble in self.plan.troubles

    def of_vm(self, number: int) -> tuple[Fault, ...]:
        """The faults of the n-th VM that is launched."""
        random = self.randomness.of(f"vm {number}")
        moment = random.choice(list(Moment))
        candidates: list[tuple[Trouble, Fault]] = [
            (Trouble.BOOTS_FAIL, BootFails(after_s=random.choice([0.0, 1.0]))),
            (Trouble.BOOTS_HANG, BootHangs()),
            (Trouble.VMS_DIE_AT_MOMENTS, Exits(when=moment, after_s=random.choice([0.0, 0.5, 8.0]))),
            (Trouble.AGENTS_GO_MUTE, AgentGoesMute(when=random.choice(list(Moment)))),
            (Trouble.PROCESSES_HANG, Hangs(when=random.choice(list(Moment)))),
            (Trouble.AGENTS_BREAK_PROTOCOL, AgentBreaksProtocol(when=random.choice(list(Moment)))),
            (Trouble.PREPARATIONS_FAIL, random.choice(_TROUBLED_PREPARATIONS)),
            (Trouble.WISHES_ARE_REFUSED, PrepareFails(part=random.choice(["vcpus", "memory_mib"]), code="ETIMEDOUT")),
            (Trouble.STOPS_ARE_SLOW, StopIsSlow(delay_s=random.choice([0.5, 3.0]))),
        ]
        return tuple(fault for trouble, fault in candidates if random.random() < _HAPPENS and self.has(trouble))

    def boot_s(self, boot_s: float, number: int) -> float:
        if not self.has(Trouble.BOOTS_ARE_SLOW):
            return boot_s
        return boot_s * self.randomness.of(f"boot {number}").choice([1.0, 1.0, 3.0])

    def of_disk(self) -> DiskFault | None:
        return self.disk_fault if self.disk_fault is not None and self._disk.random() < 0.5 else None


class Disk(SimulatedDisk):
    """What one run of the service has of the disk. `on_step` may end that run, and says so."""

    def __init__(self, *, weather: Weather, refused: set[str]) -> None:
        super().__init__()
        self.weather = weather
        self.refused = refused
        """VMs whose records the disk has refused to write or erase, ever: nothing can be promised of those."""
        self.on_step: Callable[[], bool] = lambda: False

    def _step(self, step: Step, path: Path) -> None:
        if not self._crashed and self.on_step():
            self.faults = lambda _number, _step: DiskFault.CRASH
        elif not self._crashed and (fault := self.weather.of_disk()) is not None:
            self.refused.add(path.name if step is Step.SYNC_DIRECTORY else path.parent.name)
            self.faults = lambda _number, _step: fault
        try:
            super()._step(step, path)
        finally:
            self.faults = lambda _number, _step: None

    def write(self, path: Path, data: bytes) -> None:
        self._must_be_there(path.parent)
        super().write(path, data)

    def sync_directory(self, directory: Path) -> None:
        self._must_be_there(directory)
        super().sync_directory(directory)

    def _must_be_there(self, directory: Path) -> None:
        """Directories are made and removed with their VMs."""
        if directory not in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))

    def next_run(self) -> Disk:
        found = Disk(weather=self.weather, refused=self.refused)
        found._directories = self.after_kill()._directories
        return found

    def has_record(self, vm_id: str) -> bool:
        directory = self._directories.get(VMS / vm_id)
        return directory is not None and "vm.json" in directory.names

    def has_directory(self, vm_id: str) -> bool:
        return VMS / vm_id in self._directories


class Host(SimulatedHost):
    """What one run of the service has of the host: VMs, and their directories with them."""

    def __init__(
        self,
        *,
        disk: Disk,
        weather: Weather,
        machines: dict[str, Machine],
        break_guest: Callable[[Machine], None] = lambda _: None,
    ) -> None:
        super().__init__(faults=weather.of_vm)
        self._break_guest = break_guest
        self.disk = disk
        self.weather = weather
        self.machines = machines
        """All that ever were."""
        self.dead = False
        self.on_forget: Callable[[str], None] = lambda _: None
        """A VM's process is dead and its directory is gone, or it was never there."""

    def next_run(self) -> Host:
        """The service is killed. Returns what the next run finds."""
        self.dead = True
        self.kill_service()
        found = Host(
            disk=self.disk.next_run(), weather=self.weather, machines=self.machines, break_guest=self._break_guest
        )
        found._alive, self._alive = self._alive, dict(self._alive)
        found._launched = self._launched
        return found

    async def launch(
        self,
        spec: MachineSpec,
        *,
        vm_id: str,
        directory: Path,
        nursery: trio.Nursery,
        boot_s: float | None = None,
    ) -> SimulatedVm:
        await self._unless_dead()
        self.disk.make_directory(VMS / vm_id)
        boot_s = self.weather.boot_s(boot_s or 0.0, self._launched)
        vm = await super().launch(spec, vm_id=vm_id, directory=directory, nursery=nursery, boot_s=boot_s)
        await self._unless_dead()
        self.machines[vm_id] = vm.machine
        self._break_guest(vm.machine)
        return vm

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> SimulatedSurvivor:
        await self._unless_dead()
        return await super().adopt(identity, vm_id=vm_id, directory=directory)

    def remember(self, vm_id: str) -> None:
        super().remember(vm_id)
        self.disk.make_directory(VMS / vm_id)

    def forget(self, vm_id: str) -> None:
        super().forget(vm_id)
        self.disk.remove_directory(VMS / vm_id)
        self.on_forget(vm_id)

    async def sweep(self, vms: Path, *, keep: Collection[str], given_away: Collection[str] = ()) -> None:
        """As `pool.core.recovery.sweep_remains`, which looks in a thread: whatever is there, QEMU or directory."""
        for vm_id in sorted({*self._alive, *self.disk.directories(vms)} - set(keep)):
            await trio.sleep(0.01)
            await self._unless_dead()
            self.end(vm_id)

    async def _unless_dead(self) -> None:
        """A process that was killed does nothing more; its tasks are being cancelled."""
        if self.dead:
            await trio.sleep_forever()


@attrs.define(eq=False)
class WallClock:
    """What people, NTP and daylight saving set."""

    ahead_s: float = 0.0
    set_at: float = -math.inf

    def set_ahead(self, by_s: float) -> None:
        self.ahead_s += by_s
        self.set_at = trio.current_time()

    def __call__(self) -> int:
        return int((1_700_000_000 + self.ahead_s + trio.current_time()) * 1e9)


def boottime_ns() -> int:
    """The host's clock that nobody sets."""
    return int((1000 + trio.current_time()) * 1e9)
