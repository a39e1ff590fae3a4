"""From the records of an earlier run to what the coordinator is told."""

from __future__ import annotations

import math
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from actors.journal import Journal
from actors.record import LeaseRecord
from pool import recovery
from pool.ledger.records import Lease
from pool.recovery import RECONNECT_S, recover, restored
from tests.unit.actors.stage import BOOT_ID
from tests.unit.actors.test_record import LEASE, RECORD
from vmm.errors import StopError
from vmm.qemu.adopt import adopt
from vmm.qemu.orphans import Orphan

S = 10**9
BOOTED_NS = 5000 * S


def lease(record: LeaseRecord) -> Lease:
    """As it is found 5000 s after the host was booted, at 100 s of the new run's clock."""
    return restored(attrs.evolve(RECORD, lease=record), record, now=100.0, now_ns=BOOTED_NS)


def test_a_lease_keeps_the_time_that_it_has_left() -> None:
    record = attrs.evolve(LEASE, bound=False, granted_at_ns=BOOTED_NS - 60 * S, expires_at_ns=BOOTED_NS + 20 * S)
    found = lease(record)
    assert (found.granted_at, found.expires_at) == (40.0, 120.0)
    assert (found.lease_id, found.key, found.fencing_token) == (record.lease_id, record.key, record.fencing_token)


def test_one_whose_time_was_over_meanwhile_has_none_left() -> None:
    assert lease(attrs.evolve(LEASE, bound=False, expires_at_ns=BOOTED_NS - S)).expires_at == 99.0


def test_one_that_never_ends_does_not_now() -> None:
    assert lease(attrs.evolve(LEASE, bound=False, expires_at_ns=None)).expires_at == math.inf


@pytest.mark.parametrize(("left_ns", "expires_at"), [(None, 100.0 + RECONNECT_S), (20 * S, 120.0)])
def test_one_that_was_held_waits_for_its_holder_but_not_beyond_its_time(left_ns: int | None, expires_at: float) -> None:
    expires_at_ns = None if left_ns is None else BOOTED_NS + left_ns
    assert lease(attrs.evolve(LEASE, bound=True, expires_at_ns=expires_at_ns)).expires_at == expires_at


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of a VM with a lease for another minute, beside one that nothing is known of. In virtual time."""
    journal = Journal(directory=tmp_path, boot_id=BOOT_ID, now_ns=lambda: BOOTED_NS + round(trio.current_time() * S))
    for vm_id in (RECORD.vm_id, "vm-unknown"):
        (tmp_path / vm_id).mkdir()
    journal.write(attrs.evolve(RECORD, lease=attrs.evolve(LEASE, bound=False, expires_at_ns=BOOTED_NS + 60 * S)))
    return journal


async def test_no_lease_pays_for_the_time_that_it_takes_to_end_others(
    journal: Journal, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end_slowly(_orphan: Orphan) -> None:
        mock_clock.jump(7)

    began = trio.current_time()
    monkeypatch.setattr(recovery, "end_orphan", end_slowly)
    (found,) = (await recover(journal, profiles=[], adopt=adopt)).found
    assert found.lease is not None
    assert trio.current_time() == began + 7
    assert found.lease.expires_at == pytest.approx(60)


@pytest.mark.parametrize("error", [StopError(pid=7, limit_s=10, state="D"), PermissionError(1, "not permitted")])
async def test_what_cannot_be_ended_keeps_nobody_from_starting(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = []

    async def fail(orphan: Orphan) -> None:
        tried.append(orphan.vm_id)
        raise error

    monkeypatch.setattr(recovery, "end_orphan", fail)
    recovered = await recover(journal, profiles=[], adopt=adopt)
    assert tried == ["vm-unknown"]
    assert [found.vm_id for found in recovered.found] == [RECORD.vm_id]
