"""What is left to end may take its time, and may not end at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from actors.journal import Journal
from pool.core.recovery import recover, sweep_remains
from pool.host.endpoint import EndpointError
from tests.unit.actors.stage import BOOT_ID
from tests.unit.actors.test_record import LEASE, RECORD
from tests.waiting import LIMIT_S
from vmm.backend import Remains
from vmm.errors import StopError
from vmm.qemu import orphans, owners
from vmm.qemu.backend import QemuBackend
from vmm.words.processes import ProcessIdentity

S = 10**9
BOOTED_NS = 5000 * S


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of a VM with a lease for another minute, beside one that nothing is known of. In virtual time."""
    journal = Journal(directory=tmp_path, boot_id=BOOT_ID, now_ns=lambda: BOOTED_NS + round(trio.current_time() * S))
    for vm_id in (RECORD.vm_id, "vm-unknown"):
        (tmp_path / vm_id).mkdir()
    journal.write(attrs.evolve(RECORD, lease=attrs.evolve(LEASE, expires_at_ns=BOOTED_NS + 60 * S)))
    return journal


async def test_no_lease_pays_for_the_time_that_it_takes_to_end_others(
    journal: Journal, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end_slowly(_remains: Remains) -> None:
        mock_clock.jump(7)

    began = trio.current_time()
    monkeypatch.setattr(orphans, "end_orphan", end_slowly)
    (found,) = (await recover(journal, profiles=[], backend=QemuBackend())).found
    assert found.lease is not None
    assert trio.current_time() == began + 7
    assert found.lease.expires_at == pytest.approx(60)


@pytest.mark.parametrize("error", [StopError(pid=7, limit_s=10, state="D"), PermissionError(1, "not permitted")])
@pytest.mark.logs_error("an orphan cannot be ended")
async def test_what_cannot_be_ended_keeps_nobody_from_starting(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = []

    async def fail(orphan: Remains) -> None:
        tried.append(orphan.vm_id)
        raise error

    monkeypatch.setattr(orphans, "end_orphan", fail)
    recovered = await recover(journal, profiles=[], backend=QemuBackend())
    assert tried == ["vm-unknown"]
    assert [found.vm_id for found in recovered.found] == [RECORD.vm_id]


async def test_one_that_takes_long_to_end_keeps_no_other_from_ending(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """A process that hangs in the kernel takes 20 s to be given up, and systemd waits 90 for the service to start."""
    others = {"vm-unknown", "vm-unknown-2", "vm-unknown-3"}
    for vm_id in others:
        (journal.directory / vm_id).mkdir(exist_ok=True)
    begun: set[str] = set()
    all_begun = trio.Event()

    async def hang(orphan: Remains) -> None:
        begun.add(orphan.vm_id)
        if begun == others:
            all_begun.set()
        await trio.sleep_forever()

    monkeypatch.setattr(orphans, "end_orphan", hang)
    nursery.start_soon(partial(recover, journal, profiles=[], backend=QemuBackend()))
    with trio.fail_after(LIMIT_S):
        await all_begun.wait()
    nursery.cancel_scope.cancel()


# -- what somebody has -------------------------------------------------------------------------------------------------


def found(monkeypatch: pytest.MonkeyPatch, vms: Path, *vm_ids: str) -> list[str]:
    """Has these run, each watched by process 4711. Those that are ended, as they are."""
    ended: list[str] = []

    async def end(orphan: Remains) -> None:
        ended.append(orphan.vm_id)

    found = [
        Remains(vm_id=vm_id, directory=vms / vm_id, processes=(ProcessIdentity(pid=7, start_time=1),))
        for vm_id in vm_ids
    ]
    monkeypatch.setattr(orphans, "find_orphans", lambda _: found)
    monkeypatch.setattr(owners, "owner_of", lambda pids: 4711 if 7 in pids else None)
    monkeypatch.setattr(orphans, "end_orphan", end)
    return ended


async def test_the_vms_of_a_service_that_lives_are_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory was removed, with the locks that would have kept us out."""
    ended = found(monkeypatch, tmp_path, "vm-1")
    with pytest.raises(EndpointError, match=r"process 4711 has VMs of .* choose another directory"):
        await sweep_remains(tmp_path, keep=(), given_away=(), backend=QemuBackend())
    assert ended == []


async def test_those_that_were_given_away_are_their_takers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches them, or whoever watches those that we keep, is no reason not to start."""
    ended = found(monkeypatch, tmp_path, "vm-given", "vm-kept")
    await sweep_remains(tmp_path, keep={"vm-kept"}, given_away={"vm-given"}, backend=QemuBackend())
    assert ended == []
