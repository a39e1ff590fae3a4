"""What an earlier run left: leases on this run's clock, VMs to adopt, and remains that go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

from actors.journal import RECORD_NAME, Journal
from actors.record import LeaseRecord, VmRecord
from actors.records.codec import encode
from pool.core.recovery import MAX_FENCING_TOKEN, RECONNECT_S, Recovered, recover, restored
from pool.ledger.events import FoundVm
from pool.ledger.records import Lease
from vmm.qemu.backend import QemuBackend
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

NS = 10**9
BOOT_ID = "this-boot"
NOW_NS = 5000 * NS
"""On the host's clock."""
NOW = 30.0
"""On trio's, which began when the service did."""

REPORT = PreparationReport(
    reseeded=True, wall_clock_ns=42, hostname="guest-1", cpus_online=2, memory_mib=480, memory_online_mib=512
)
TIMINGS = HandOutTimings(resume_s=0.001, prepare_s=0.002, total_s=0.003)
TERMS = LeaseTerms(
    lease_id="lease-1",
    owner_uid=1000,
    request=LeaseRequest(key="job-7", ttl_s=600.0),
    fencing_token=7,
    queued_s=0.5,
    was_ready=True,
)
LEASE = LeaseRecord(
    terms=TERMS,
    granted_at_ns=NOW_NS - 100 * NS,
    expires_at_ns=NOW_NS + 500 * NS,
    report=REPORT,
    timings=TIMINGS,
)
IDLE = VmRecord(
    vm_id="vm-1",
    profile="default",
    generation="f1",
    made_by=ProducerKind.TEMPLATE,
    backend=BackendKind.QEMU,
    process=ProcessIdentity(pid=4242, start_time=777),
    boot_id=BOOT_ID,
    made_at_ns=NOW_NS - 200 * NS,
    lease=None,
)


def promising(**promised: Any) -> LeaseRecord:
    return attrs.evolve(LEASE, terms=attrs.evolve(TERMS, **promised))


def lease(**changes: Any) -> Lease:
    changed = attrs.evolve(LEASE, **changes)
    return restored(attrs.evolve(IDLE, lease=changed), changed, now=NOW, now_ns=NOW_NS)


# -- the lease ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_what_it_was_with_its_times_on_this_runs_clock() -> None:
    assert lease() == Lease(
        vm_id="vm-1",
        pid=4242,
        profile="default",
        terms=TERMS,
        granted_at=NOW - 100,
        expires_at=NOW + 500,
        made_by=ProducerKind.TEMPLATE,
        report=REPORT,
        timings=TIMINGS,
    )


def test_a_lease_without_an_end_has_none() -> None:
    assert lease(expires_at_ns=None).expires_at == math.inf


def test_a_lease_that_expired_meanwhile_has_expired() -> None:
    assert lease(expires_at_ns=NOW_NS - NS).expires_at == NOW - 1


@pytest.mark.parametrize(
    ("expires_at_ns", "expires_at"),
    [(None, NOW + RECONNECT_S), (NOW_NS + 500 * NS, NOW + RECONNECT_S), (NOW_NS + 5 * NS, NOW + 5)],
    ids=["never", "later", "sooner"],
)
def test_a_lease_that_was_held_open_waits_a_while_for_its_holder(expires_at_ns: int | None, expires_at: float) -> None:
    found = lease(terms=attrs.evolve(TERMS, request=LeaseRequest(bound=True)), expires_at_ns=expires_at_ns)
    assert (found.request.bound, found.expires_at) == (True, expires_at)


# -- the directory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(directory=tmp_path, boot_id=BOOT_ID, now_ns=lambda: NOW_NS)


def leave(journal: Journal, vm_id: str, record: VmRecord | bytes | None) -> Path:
    """A VM's directory, as a service that was killed leaves it."""
    home = journal.directory / vm_id
    home.mkdir()
    (home / "console.log").write_text("Linux version 6.1")
    if isinstance(record, VmRecord):
        record = encode(attrs.evolve(record, vm_id=vm_id))
    if record is not None:
        (home / RECORD_NAME).write_bytes(record)
    return home


BACKEND = QemuBackend()


async def recovered(journal: Journal) -> Recovered:
    return await recover(journal, profiles={"default"}, backend=BACKEND, base="default", clock=lambda: NOW)


async def test_where_nothing_was_left_nothing_is_found(journal: Journal) -> None:
    assert await recovered(journal) == Recovered(found=(), adoptions={})


async def test_idle_and_leased_vms_are_to_be_adopted_and_left_alone(journal: Journal) -> None:
    idle, leased = leave(journal, "vm-1", IDLE), leave(journal, "vm-2", attrs.evolve(IDLE, lease=LEASE))
    found = await recovered(journal)
    assert found.found == (
        FoundVm(vm_id="vm-1", profile="default", lease=None, memory_mib=0),
        FoundVm(vm_id="vm-2", profile="default", lease=attrs.evolve(lease(), vm_id="vm-2"), memory_mib=512),
    )
    assert {vm_id: adoption.record.vm_id for vm_id, adoption in found.adoptions.items()} == {
        "vm-1": "vm-1",
        "vm-2": "vm-2",
    }
    assert all(adoption.adopt == BACKEND.adopt for adoption in found.adoptions.values())
    assert (idle / RECORD_NAME).exists()
    assert (leased / RECORD_NAME).exists()


async def test_of_a_profile_that_is_no_more_only_leases_are_kept(journal: Journal) -> None:
    gone = attrs.evolve(IDLE, profile="gone")
    idle = leave(journal, "vm-1", gone)
    leave(journal, "vm-2", attrs.evolve(gone, lease=LEASE))
    found = await recovered(journal)
    assert [(vm.vm_id, vm.profile) for vm in found.found] == [("vm-2", "gone")]
    assert set(found.adoptions) == {"vm-2"}
    assert not idle.exists()


async def test_a_lease_of_a_callers_own_configuration_counts_for_what_that_is_based_on(journal: Journal) -> None:
    leave(journal, "vm-1", attrs.evolve(IDLE, profile="own-0123456789ab", lease=LEASE))
    found = await recovered(journal)
    assert [(vm.profile, vm.within) for vm in found.found] == [("own-0123456789ab", "default")]


_REMAINS: dict[str, VmRecord | bytes | None] = {
    "no record": None,
    "half a record": encode(IDLE)[:100],
    "no JSON": b"\xff\0",
    "of another backend": attrs.evolve(IDLE, backend=BackendKind.SIMULATED, lease=LEASE),
    "of another boot": attrs.evolve(IDLE, boot_id="another-boot", lease=LEASE),
    "of another VM": encode(IDLE),
    "a token that no service grants": attrs.evolve(IDLE, lease=promising(fencing_token=MAX_FENCING_TOKEN + 1)),
    "memory that no host has": attrs.evolve(
        IDLE, lease=attrs.evolve(LEASE, report=attrs.evolve(REPORT, memory_online_mib=2**40))
    ),
}


@pytest.mark.parametrize("left", _REMAINS.values(), ids=_REMAINS)
async def test_what_cannot_be_adopted_goes(journal: Journal, left: VmRecord | bytes | None) -> None:
    remains = leave(journal, "vm-9", left)
    kept = leave(journal, "vm-2", IDLE)
    with capture_logs() as logs:
        found = await recovered(journal)
    assert [vm.vm_id for vm in found.found] == ["vm-2"]
    assert not remains.exists()
    assert kept.exists()
    told = [line["event"] for line in logs if line.get("vm") == "vm-9"]
    assert told == ([] if left is None else ["a record cannot be used; its VM is ended"]) + ["ending an orphan"]


async def test_a_record_that_was_being_written_is_as_if_it_had_not_been(journal: Journal) -> None:
    home = leave(journal, "vm-1", IDLE)
    (home / f"{RECORD_NAME}.new").write_bytes(encode(attrs.evolve(IDLE, lease=LEASE))[:50])
    (found,) = (await recovered(journal)).found
    assert found.lease is None


async def test_a_file_among_the_directories_is_no_vm(journal: Journal) -> None:
    """Somebody's editor left it there; it must not keep the service from starting."""
    (journal.directory / "notes").write_text("")
    leave(journal, "vm-1", IDLE)
    assert [vm.vm_id for vm in (await recovered(journal)).found] == ["vm-1"]


def leave_leased(journal: Journal, vm_id: str, *, key: str = "job-7", **promised: Any) -> Path:
    return leave(journal, vm_id, attrs.evolve(IDLE, lease=promising(request=LeaseRequest(key=key), **promised)))


async def test_a_token_that_follows_on_the_highest_that_is_adopted_can_be_recorded(journal: Journal) -> None:
    """Or one record would stop every hand-out of the next run."""
    leave_leased(journal, "vm-1", fencing_token=MAX_FENCING_TOKEN)
    (found,) = (await recovered(journal)).found
    assert found.lease is not None
    assert encode(attrs.evolve(IDLE, lease=promising(fencing_token=found.lease.terms.fencing_token + 1)))


@pytest.mark.parametrize(
    "earlier", [{"key": "another"}, {"lease_id": "lease-0"}], ids=["the same lease", "the same key of the same user"]
)
@pytest.mark.parametrize("first", ["vm-1", "vm-2"])
async def test_of_two_records_of_one_lease_the_later_one_counts(
    journal: Journal, earlier: dict[str, Any], first: str
) -> None:
    """The other VM would be nobody's, and nobody could end it."""
    (later,) = {"vm-1", "vm-2"} - {first}
    goes = leave_leased(journal, first, fencing_token=6, **earlier)
    stays = leave_leased(journal, later, fencing_token=7)
    with capture_logs() as logs:
        found = await recovered(journal)
    assert [vm.vm_id for vm in found.found] == [later]
    assert (goes.exists(), stays.exists()) == (False, True)
    assert [line["reason"] for line in logs if "reason" in line] == [f"{later} has the same lease or key"]


async def test_two_users_may_have_the_same_key(journal: Journal) -> None:
    leave_leased(journal, "vm-1", lease_id="lease-0", owner_uid=1001)
    leave_leased(journal, "vm-2")
    assert len((await recovered(journal)).found) == 2


async def test_leases_without_a_key_have_none_in_common(journal: Journal) -> None:
    for number in (1, 2):
        leave_leased(journal, f"vm-{number}", lease_id=f"lease-{number}", key="")
    assert len((await recovered(journal)).found) == 2
