"""Recovery: records become what the coordinator is to adopt; whatever has none is swept."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import attrs
import trio

from actors.record import LeaseRecord, VmRecord
from pool.core.recovery import Recovered, recover
from tests.unit.actors.stage import BOOT_ID, VMS, simulated_journal
from tests.virtual_time import in_virtual_time
from vmm.simulated.backend import SimulatedBackend
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

IDLE = VmRecord(
    vm_id="vm-idle",
    profile="default",
    generation="generation-1",
    made_by=ProducerKind.DIRECT,
    backend=BackendKind.SIMULATED,
    process=ProcessIdentity(pid=1, start_time=1),
    boot_id=BOOT_ID,
    made_at_ns=0,
    lease=None,
)


def leased(*, ttl_s: float) -> VmRecord:
    """Leased just now."""
    lease = LeaseRecord.grant(
        LeaseTerms(lease_id="lease-1", owner_uid=1000, request=LeaseRequest(ttl_s=ttl_s)),
        now_ns=simulated_journal().now_ns(),
        report=PreparationReport(reseeded=True, wall_clock_ns=1, hostname="h", cpus_online=1, memory_mib=1),
        timings=HandOutTimings(resume_s=0.0, prepare_s=0.0, total_s=0.0),
    )
    return attrs.evolve(IDLE, vm_id="vm-leased", lease=lease)


@attrs.define
class SlowSweep:
    takes_s: float = 0.0
    kept: list[str] = attrs.field(factory=list)

    async def __call__(self, vms: Path, *, keep: Collection[str], given_away: Collection[str] = ()) -> None:
        assert vms == VMS
        self.kept.extend(sorted(keep))
        await trio.sleep(self.takes_s)


async def recovered(*records: VmRecord, sweep: SlowSweep) -> Recovered:
    journal = simulated_journal()
    for record in records:
        journal.write(record)
    return await recover(journal, profiles=["default"], backend=SimulatedBackend(), sweep=sweep)


@in_virtual_time
async def test_a_lease_has_the_time_left_that_it_had_however_long_the_sweep_takes() -> None:
    found = await recovered(leased(ttl_s=60.0), sweep=SlowSweep(takes_s=20.0))
    (vm,) = found.found
    assert vm.lease is not None
    assert vm.lease.expires_at == 60.0
    assert trio.current_time() == 20.0


@in_virtual_time
async def test_only_vms_that_can_be_adopted_are_kept() -> None:
    sweep = SlowSweep()
    of_no_profile = attrs.evolve(IDLE, vm_id="vm-old", profile="a-profile-that-was")
    found = await recovered(IDLE, leased(ttl_s=60.0), of_no_profile, sweep=sweep)
    assert sweep.kept == ["vm-idle", "vm-leased"]
    assert [vm.vm_id for vm in found.found] == sweep.kept
    assert sorted(found.adoptions) == sweep.kept
