"""Watching over the wire: a snapshot, then everything that happens, to whoever may know of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from h2.settings import SettingCodes

from pool.core.requests import RefusedError
from pool.ledger.records import Owner
from pool.rpc.server import ServerSettings
from pool.settings.limits import WATCHERS_PER_USER
from tests.unit.rpc.raw import STATUS, RawClient, connected
from tests.unit.rpc.served import EVIDENCE, CoordinatorWithEvidence, Served, serving
from vmm.words.leases import LeaseRequest
from vmm.words.processes import ExitReport
from vmm.words.wishes import GuestFile, Wishes
from vmpool.wire.generated.vmpool import v1 as wire

WATCH = "/vmpool.v1.Pool/Watch"
RESOURCE_EXHAUSTED, UNAVAILABLE = "8", "14"
ME = Owner(uid=os.geteuid())
STRANGER = 4242


@attrs.define(eq=False)
class Watching:
    """One Watch call, and what a client makes of it."""

    raw: RawClient
    call: int
    seen: list[wire.WatchReply] = attrs.field(factory=list)

    async def next(self) -> wire.WatchReply:
        reply = await self.raw.message(self.call, wire.WatchReply)
        assert isinstance(reply, wire.WatchReply), "the watch has ended"
        self.seen.append(reply)
        return reply

    async def until_news(self, of: Callable[[wire.WatchReply], bool]) -> wire.WatchReply:
        while not of(reply := await self.next()):
            pass
        return reply


async def watching(raw: RawClient) -> Watching:
    return Watching(raw, await raw.request(WATCH, wire.WatchRequest()))


def is_vm(vm_id: str, state: wire.VmState) -> Callable[[wire.WatchReply], bool]:
    return lambda reply: reply.vm is not None and (reply.vm.vm_id, reply.vm.state) == (vm_id, state)


def replayed(replies: list[wire.WatchReply]) -> tuple[dict[str, wire.VmState], set[str], int]:
    """What a client knows in the end: the VMs' states, its leases, the pool's size."""
    vms: dict[str, wire.VmState] = {}
    leases: set[str] = set()
    size = 0
    for reply in replies:
        if reply.snapshot is not None:
            vms = {vm.vm_id: vm.state for vm in reply.snapshot.vms}
            leases = {lease.lease_id for lease in reply.snapshot.leases}
            size = reply.snapshot.profiles[0].size
        elif reply.vm is not None and reply.vm.state is wire.VmState.GONE:
            del vms[reply.vm.vm_id]  # it was known: nothing is told of what was never begun
        elif reply.vm is not None:
            vms[reply.vm.vm_id] = reply.vm.state
        elif reply.lease is not None and reply.lease.change is wire.LeaseChangeKind.ENDED:
            leases.remove(reply.lease.lease_id)
        elif reply.lease is not None:
            leases.add(reply.lease.lease_id)
        elif reply.profile is not None and reply.profile.change is wire.ProfileChangeKind.RESIZED:
            size = int(reply.profile.detail)
    return vms, leases, size


async def status(served: Served) -> wire.StatusReply:
    async with connected(served.path) as raw:
        call = await raw.request(STATUS, wire.StatusRequest())
        reply = await raw.message(call, wire.StatusReply)
        await raw.status(call)
    assert isinstance(reply, wire.StatusReply)
    return reply


async def test_a_snapshot_comes_first_and_has_all_that_status_has(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=ME)
    await served.until(lambda: served.coordinator.views()[0].ready == 2)
    async with connected(served.path) as raw:
        snapshot = (await (await watching(raw)).next()).snapshot
    assert snapshot is not None
    now = await status(served)
    assert snapshot.profiles == now.profiles
    assert [found.lease_id for found in snapshot.leases] == [lease.lease_id]
    states = {vm.vm_id: vm.state for vm in snapshot.vms}
    assert states.pop(lease.vm_id) == wire.VmState.LEASED
    assert list(states.values()) == [wire.VmState.READY, wire.VmState.READY]


async def test_what_is_told_adds_up_to_what_there_is(served: Served) -> None:
    """Leases come and go, the pool is resized and drained, an idle VM dies, one is evicted; nothing is missed."""
    async with connected(served.path) as raw:
        watch = await watching(raw)
        await watch.next()
        first = await served.coordinator.acquire(profile="default", owner=ME)
        second = await served.coordinator.acquire(profile="default", owner=ME)
        await served.coordinator.resize("default", 4)
        await served.coordinator.renew(second.lease_id, owner=ME, ttl_s=60)
        await served.coordinator.release(first.lease_id, owner=ME)
        await served.until(lambda: served.coordinator.views()[0].ready == 4)
        victim, evicted, *_ = served.host.alive - {first.vm_id, second.vm_id}
        served.host.machine(victim).exit(ExitReport(signal=9))
        await served.coordinator.evict(vm_id=evicted)
        await served.coordinator.drain("default")
        await served.coordinator.undrain("default")
        await served.coordinator.resize("default", 3)
        await served.until(lambda: len(served.host.alive) == 4 and served.coordinator.views()[0].ready == 3)

        last = await served.coordinator.acquire(profile="default", owner=ME)
        await served.coordinator.release(last.lease_id, owner=ME)
        await served.until(lambda: len(served.host.alive) == 4 and served.coordinator.views()[0].ready == 3)
        await watch.until_news(is_vm(last.vm_id, wire.VmState.GONE))
        now = await status(served)
        while Counter(replayed(watch.seen)[0].values()) != {wire.VmState.READY: 3, wire.VmState.LEASED: 1}:
            await watch.next()

    vms, leases, size = replayed(watch.seen)
    (profile,) = now.profiles
    assert set(vms) == served.host.alive
    assert Counter(vms.values()) == {wire.VmState.READY: profile.ready, wire.VmState.LEASED: profile.leased}
    assert leases == {lease.lease_id for lease in now.leases} == {second.lease_id}
    assert size == profile.size == 3
    assert len([reply for reply in watch.seen if reply.snapshot is not None]) == 1
    changes = [reply.profile.change for reply in watch.seen if reply.profile is not None]
    kinds = wire.ProfileChangeKind
    expected = [kinds.RESIZED, kinds.DRAINED, kinds.UNDRAINED, kinds.RESIZED]
    assert [change for change in changes if change is not kinds.CIRCUIT] == expected


async def test_one_who_does_not_read_holds_up_nobody_and_begins_anew(served: Served) -> None:
    """Its window is full; the pool goes on, and keeps a bounded number of news for it."""
    served.coordinator.watchers.backlog = 16
    async with connected(served.path) as raw:
        watch = await watching(raw)
        await watch.next()
        (watcher,) = served.coordinator.watchers._watchers
        raw.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await raw.flush()
        for _ in range(10):
            lease = await served.coordinator.acquire(profile="default", owner=ME)
            await served.coordinator.release(lease.lease_id, owner=ME)
            assert len(watcher._news) <= 16
        await served.until(lambda: len(served.host.alive) == 2 and served.coordinator.views()[0].ready == 2)
        assert watcher._behind, "nothing of what it was told since has been sent"

        raw.http2.increment_flow_control_window(2**20, watch.call)
        await raw.flush()
        kept = await served.coordinator.acquire(profile="default", owner=ME)
        await served.until(lambda: len(served.host.alive) == 3 and served.coordinator.views()[0].ready == 2)
        expected = dict.fromkeys(served.host.alive, wire.VmState.READY) | {kept.vm_id: wire.VmState.LEASED}
        while replayed(watch.seen) != (expected, {kept.lease_id}, 2):
            await watch.next()
        assert len([reply for reply in watch.seen if reply.snapshot is not None]) > 1
        await served.coordinator.release(kept.lease_id, owner=ME)
        await watch.until_news(is_vm(kept.vm_id, wire.VmState.GONE))


async def test_a_stranger_learns_of_others_leases_without_their_ids(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    settings = ServerSettings(allowed_uids=frozenset({STRANGER}))
    async with serving(vm_home, settings=settings, coordinator_type=CoordinatorWithEvidence) as served:
        call_as(STRANGER)
        request = LeaseRequest(labels={"of": "nobody's business"})
        theirs = await served.coordinator.acquire(profile="default", owner=Owner(uid=1000), request=request)
        his = await served.coordinator.acquire(profile="default", owner=Owner(uid=STRANGER))
        async with connected(served.path) as raw:
            watch = await watching(raw)
            snapshot = (await watch.next()).snapshot
            assert snapshot is not None
            assert [lease.lease_id for lease in snapshot.leases] == [his.lease_id]
            await served.coordinator.renew(theirs.lease_id, owner=Owner(uid=1000), ttl_s=60)
            await served.coordinator.release(theirs.lease_id, owner=Owner(uid=1000))
            await served.coordinator.release(his.lease_id, owner=Owner(uid=STRANGER))
            await watch.until_news(is_vm(his.vm_id, wire.VmState.GONE))
        changes = [reply.lease for reply in watch.seen if reply.lease is not None]
        assert [(change.lease_id, change.vm_id, change.change) for change in changes] == [
            ("", theirs.vm_id, wire.LeaseChangeKind.RENEWED),
            ("", theirs.vm_id, wire.LeaseChangeKind.ENDED),
            (his.lease_id, his.vm_id, wire.LeaseChangeKind.ENDED),
        ]
        seen = b"".join(bytes(reply) for reply in watch.seen)
        assert EVIDENCE.encode() not in seen
        assert b"nobody's business" not in seen


async def test_a_stranger_is_never_told_the_id_of_anothers_lease(vm_home: Path, call_as: Callable[[int], None]) -> None:
    settings = ServerSettings(allowed_uids=frozenset({STRANGER}))
    async with serving(vm_home, settings=settings) as served:
        call_as(STRANGER)
        theirs = await served.coordinator.acquire(profile="default", owner=Owner(uid=1000))
        async with connected(served.path) as raw:
            watch = await watching(raw)
            await watch.next()
            await served.coordinator.release(theirs.lease_id, owner=Owner(uid=1000))
            await watch.until_news(is_vm(theirs.vm_id, wire.VmState.GONE))
        ids = [reply for reply in watch.seen if theirs.lease_id.encode() in bytes(reply)]
    assert ids == []


async def test_a_stranger_does_not_hear_what_anothers_guest_said(vm_home: Path, call_as: Callable[[int], None]) -> None:
    """A kernel's last words are chosen by whoever is root in it."""
    said = ExitReport(status=0, cause="its guest's kernel panicked: my password is xyzzy")
    async with serving(vm_home, settings=ServerSettings(allowed_uids=frozenset({STRANGER}))) as served:
        theirs = await served.coordinator.acquire(profile="default", owner=Owner(uid=1000))
        call_as(STRANGER)
        async with connected(served.path) as raw:
            watch = await watching(raw)
            await watch.next()
            served.host.machine(theirs.vm_id).exit(said)
            await watch.until_news(is_vm(theirs.vm_id, wire.VmState.GONE))
    assert "xyzzy" not in str(watch.seen)
    (end,) = [reply.lease for reply in watch.seen if reply.lease is not None]
    assert (end.change, end.reason, end.detail) == (wire.LeaseChangeKind.ENDED, wire.EndReason.VM_LOST, "")


async def test_a_stranger_does_not_hear_what_anothers_guest_refused(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    """The refusal, which names a file, is for its caller."""
    wishes = Wishes(files=(GuestFile(path="/nope/xyzzy", data=b""),))
    async with serving(vm_home, settings=ServerSettings(allowed_uids=frozenset({STRANGER}))) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        call_as(STRANGER)
        async with connected(served.path) as raw:
            watch = await watching(raw)
            await watch.next()
            with pytest.raises(RefusedError, match="xyzzy"):
                await served.coordinator.acquire(
                    profile="default", owner=Owner(uid=1000), request=LeaseRequest(wishes=wishes)
                )
            ended = await watch.until_news(lambda reply: reply.vm is not None and bool(reply.vm.reason))
    assert ended.vm is not None
    assert (ended.vm.reason, ended.vm.detail) == (
        wire.StopReason.WISH,
        "its guest refused what its caller wished",
    )
    assert "xyzzy" not in str(watch.seen)


async def test_a_watch_ends_when_the_service_stops(served: Served) -> None:
    async with connected(served.path) as raw:
        watch = await watching(raw)
        await watch.next()
        served.server.stop()
        code, message = await raw.status(watch.call)
        assert code == UNAVAILABLE
        assert "shutting down; try again later" in message
    assert not served.coordinator.watchers._watchers


async def test_a_watch_does_not_use_up_the_grace_of_a_service_that_stops(served: Served) -> None:
    async with connected(served.path) as raw:
        watch = await watching(raw)
        await watch.next()
        served.server.stop(grace_s=1000)
        assert (await raw.status(watch.call))[0] == UNAVAILABLE
        await raw.hung_up()


@pytest.mark.parametrize("how", ["reset", "gone"])
async def test_a_client_that_leaves_leaves_no_watcher(served: Served, how: str) -> None:
    async with connected(served.path) as raw:
        watch = await watching(raw)
        await watch.next()
        assert len(served.coordinator.watchers._watchers) == 1
        if how == "reset":
            raw.http2.reset_stream(watch.call)
            await raw.flush()
            await served.until(lambda: not served.coordinator.watchers._watchers)
    await served.until(lambda: not served.coordinator.watchers._watchers)


async def test_too_many_watchers_are_refused_and_told_what_to_do(served: Served) -> None:
    async with connected(served.path) as raw:
        for _ in range(WATCHERS_PER_USER):
            await (await watching(raw)).next()
        code, message = await raw.status((await watching(raw)).call)
        assert code == RESOURCE_EXHAUSTED
        assert message == (
            f"user {os.geteuid()} already has {WATCHERS_PER_USER} watches open; end one of them, use Status, or raise "
            "limits.watchers_per_user"
        )


async def test_a_watch_needs_its_request(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(WATCH)
        await raw.send(call, end=True)
        assert await raw.status(call) == ("3", "request: is missing; send one message")
