"""Those who do not want VMs: administrators, and whatever is to blame for faults."""

from __future__ import annotations

import math
import signal
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.core.requests import RefusedError
from tests.simulation.incarnation import Incarnation, ServiceGoneError
from tests.simulation.plan import Trouble
from vmm.simulated.disk import DiskFault
from vmm.words.processes import ExitReport

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


async def run_administrator(simulation: Simulation, number: int) -> None:
    """Resizes, drains, resumes, evicts and resets while the busy time lasts."""
    random = simulation.randomness.of(f"administrator {number}")
    while True:
        await trio.sleep(random.expovariate(1 / 5.0))
        if simulation.weather.quiet:
            return
        service = await simulation.serving()
        profile = random.choice(simulation.plan.profiles).name
        what = random.choice(["resize", "resize", "drain", "undrain", "undrain", "evict one", "evict all", "reset"])
        size = random.randint(0, 4)
        simulation.trace.add(f"administrator {number}", f"{what} {profile} ({size})")
        vms = sorted(service.host.alive)
        vm_id = random.choice(vms) if vms else "vm-never"
        try:
            await service.call(partial(_order, what=what, profile=profile, size=size, vm_id=vm_id))
        except (RefusedError, ServiceGoneError):
            continue


async def _order(coordinator: Coordinator, *, what: str, profile: str, size: int, vm_id: str) -> None:
    match what:
        case "resize":
            await coordinator.resize(profile, size)
        case "drain":
            await coordinator.drain(profile)
        case "undrain":
            await coordinator.undrain(profile)
        case "evict one":
            await coordinator.evict(vm_id=vm_id)
        case "evict all":
            await coordinator.evict(profile=profile)
        case _:
            await coordinator.reset(profile)


async def make_trouble(simulation: Simulation) -> None:
    """Faults that come from outside, of the kinds that the seed has, while the busy time lasts."""
    random = simulation.randomness.of("trouble")
    troubles = sorted(simulation.plan.troubles & _DEEDS.keys(), key=lambda trouble: trouble.value)
    while troubles:
        await trio.sleep(random.expovariate(1 / 3.0))
        for _ in range(random.choice([0, 0, random.randint(1, 30)])):
            await trio.lowlevel.checkpoint()
        if simulation.weather.quiet:
            return
        trouble = random.choice(troubles)
        simulation.trace.add("trouble", trouble.value)
        service = simulation.service
        if service is not None:
            await _DEEDS[trouble](_Deed(simulation=simulation, service=service, random=random))


async def lose_time(simulation: Simulation) -> None:
    """Of guests, one at a time, while the busy time lasts."""
    random = simulation.randomness.of("lost time")
    while True:
        await trio.sleep(random.expovariate(1 / 5.0))
        if simulation.weather.quiet:
            return
        host = simulation.host if simulation.service is None else simulation.service.host
        if guests := [vm_id for vm_id in sorted(host.alive) if vm_id in host.machines]:
            vm_id, lost_s = random.choice(guests), random.choice([0.1, 2.0, 3600.0])
            simulation.trace.add("trouble", f"{vm_id} loses {lost_s} s")
            host.machines[vm_id].lose_time(int(lost_s * 1e9))
            simulation.clock_troubles[vm_id] = trio.current_time()


@attrs.frozen(kw_only=True)
class _Deed:
    simulation: Simulation
    service: Incarnation
    random: Random

    async def let_one_die(self) -> None:
        """A VM in whatever state, or a shell."""
        machines = [
            machine for vm_id in sorted(self.service.host.alive) if (machine := self.service.host.machines.get(vm_id))
        ]
        shells = [
            shell
            for backend in self.service.assembly.templates.values()
            for shell in backend.shells.values()
            if shell.alive and shell.id not in self.service.host.machines
        ]
        report = ExitReport(signal=signal.SIGSEGV, stderr_tail="simulated fault")
        if machines and (not shells or self.random.random() < 0.7):
            self.random.choice(machines).exit(report)
        elif shells:
            self.random.choice(shells).crash(report)

    async def mute_one(self) -> None:
        if machines := [vm_id for vm_id in sorted(self.service.host.alive) if vm_id in self.service.host.machines]:
            self.service.host.machines[self.random.choice(machines)].mute()

    async def hang_one(self) -> None:
        """For a while, or for ever; none does so twice, and is asked in between by chance only."""
        machines = self.service.host.machines
        candidates = [machines[vm_id] for vm_id in sorted(self.service.host.alive) if vm_id in machines]
        if candidates := [machine for machine in candidates if machine.hung_at == -math.inf]:
            machine = self.random.choice(candidates)
            machine.hang()
            await trio.sleep(self.random.choice([0.5, 5.0]))
            if self.random.random() < 0.5:
                machine.hang(hung=False)

    async def break_protocol_of_one(self) -> None:
        if machines := [vm_id for vm_id in sorted(self.service.host.alive) if vm_id in self.service.host.machines]:
            self.service.host.machines[self.random.choice(machines)].break_protocol()

    async def fill_disk(self) -> None:
        await self._trouble_disk(DiskFault.NO_SPACE)

    async def break_disk(self) -> None:
        await self._trouble_disk(DiskFault.IO_ERROR)

    async def _trouble_disk(self, fault: DiskFault) -> None:
        weather = self.simulation.weather
        weather.disk_fault = fault
        await trio.sleep(self.random.choice([0.5, 3.0, 10.0]))
        weather.disk_fault = None

    async def fail_templates(self) -> None:
        for backend in self.service.assembly.templates.values():
            backend.builds_fail, backend.clones_fail = self.random.random() < 0.5, self.random.random() < 0.5
        await trio.sleep(self.random.choice([2.0, 10.0]))
        for backend in self.service.assembly.templates.values():
            backend.builds_fail = backend.clones_fail = False

    async def damage_templates(self) -> None:
        for backend in self.service.assembly.templates.values():
            if backend.template is not None:
                backend.template.damaged = True

    async def change_inputs(self) -> None:
        self.simulation.machine_numbers[self.random.choice(self.simulation.plan.profiles).name] += 1

    async def jump(self) -> None:
        self.simulation.wall_clock.set_ahead(self.random.choice([0.5, 3600.0]))

    async def take_memory(self) -> None:
        weather = self.simulation.weather
        weather.low_memory = True
        await trio.sleep(self.random.choice([3.0, 15.0]))
        weather.low_memory = False


_DEEDS = {
    Trouble.VMS_DIE: _Deed.let_one_die,
    Trouble.AGENTS_GO_MUTE: _Deed.mute_one,
    Trouble.PROCESSES_HANG: _Deed.hang_one,
    Trouble.AGENTS_BREAK_PROTOCOL: _Deed.break_protocol_of_one,
    Trouble.DISK_IS_FULL: _Deed.fill_disk,
    Trouble.DISK_FAILS: _Deed.break_disk,
    Trouble.TEMPLATES_FAIL: _Deed.fail_templates,
    Trouble.TEMPLATES_ARE_DAMAGED: _Deed.damage_templates,
    Trouble.INPUTS_CHANGE: _Deed.change_inputs,
    Trouble.CLOCK_JUMPS: _Deed.jump,
    Trouble.MEMORY_GETS_LOW: _Deed.take_memory,
}
