"""A service is killed, and the next one has what it had: idle VMs are adopted, leases go on, remains are removed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from pool.core.recovery import RECONNECT_S
from tests.integration.service.calls import counters_of, hold
from tests.integration.service.templates import config, is_full, output, profile_of, times_in_log
from tests.running import STOP_LIMIT_S, RunningService, ServiceHome, service_home
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmm.qemu.confinement.group import VmGroup
from vmpool import connect
from vmpool.client import CallError, Client, OnEmpty, ServiceUnavailableError, open_client

pytestmark = pytest.mark.timeout(180)

Pids = dict[str, int]

MakeHome = Callable[..., ServiceHome]


@pytest.fixture(scope="module")
def place(kept_template: Path) -> Iterator[Path]:
    with place_for_template(kept_template) as place:
        yield place


@pytest.fixture
def make_home(place: Path, guest_image: GuestImage) -> Iterator[MakeHome]:
    with contextlib.ExitStack() as homes:

        def make(*, producer: str = "template", **settings: Any) -> ServiceHome:
            text = config(place, producer=producer, **settings)
            return homes.enter_context(service_home(text, image_directory=guest_image.kernel.parent))

        yield make


def pids(service: RunningService) -> Pids:
    return {vm_id: process.pid for vm_id, process in service.qemus().items()}


def record_of(service: RunningService, vm_id: str) -> Path:
    return service.runtime / "vms" / vm_id / "vm.json"


def groups_of(service: RunningService, vm_id: str) -> tuple[Path, ...]:
    """Of an ordinary user's service: none."""
    return VmGroup.recorded_in(record_of(service, vm_id).with_name("cgroups")).directories


def rewrite_as_version_2(record: Path) -> None:
    table = json.loads(record.read_text()) | {"version": 2}
    if table["lease"]:
        del table["lease"]["name"]
    record.write_text(json.dumps(table))


def idle(service: RunningService) -> set[str]:
    """VMs that are recorded, and as nobody's."""
    records = (service.runtime / "vms").glob("*/vm.json")
    return {record.parent.name for record in records if '"lease": null' in record.read_text()}


async def works(client: Client, lease_id: str, script: str) -> str:
    """What the script writes, once the service has reached the guest again."""
    said = ""

    async def answers() -> bool:
        nonlocal said
        try:
            said = await output(client, lease_id, script)
        except CallError as error:
            if error.status != "UNAVAILABLE":
                raise
            return False
        return True

    await until(answers)
    return said


@pytest.mark.parametrize(("producer", "more"), [("direct", {}), ("template", {"shells": 1})])
async def test_idle_vms_are_adopted_and_handed_out(make_home: MakeHome, producer: str, more: dict[str, object]) -> None:
    home = make_home(producer=producer, size=2, **more)
    killed = home.start()
    async with open_client(killed.socket_path) as client:

        async def complete() -> bool:
            return await is_full(client) and len(killed.qemus()) == 2 + len(more)

        await until(complete)
    before, ready = pids(killed), idle(killed)
    assert len(ready) == 2
    killed.crash()

    service = home.start()
    try:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            counters = await counters_of(client)
            assert (counters.adopted, counters.produced) == (2, 2), "found all of them, and made none"
            assert ready == idle(service)
            assert pids(service).items() >= {vm_id: before[vm_id] for vm_id in ready}.items()
            assert not pids(service).keys() & (before.keys() - ready), "a shell has no record, and is nobody's"
            async with client.lease() as vm:
                assert (vm.vm_id in ready, vm.made_by, vm.timings.was_ready) == (True, producer, True)
                assert await output(client, vm.lease_id, "hostname") == f"{vm.vm_id}\n"
            await until(lambda: is_full(client))
    finally:
        home.end(service)


COUNT = "while :; do echo count >/dev/console; sleep 0.05; done"


async def test_leases_go_on_and_their_vms_never_stopped(make_home: MakeHome) -> None:
    """One that was acquired; one that was held and whose holder comes back; one whose holder does not."""
    home = make_home(size=1)
    killed = home.start()
    async with (
        open_client(killed.socket_path) as client,
        hold(client, key="comes back") as returning,
        hold(client, key="is gone") as abandoned,
    ):
        acquired = await client.acquire(ttl_s=600, labels={"job": "7"})
        await output(client, acquired.lease_id, "echo kept >/tmp/kept")
        async with connect(killed.socket_path) as pool:
            await (await pool.get(acquired.lease_id)).start(COUNT)
        await output(client, returning.lease_id, "echo kept >/tmp/kept")
        expected = {vm.vm_id: vm.pid for vm in (acquired, returning, abandoned)}
        killed.crash()
    pids_max = [file for group in groups_of(killed, acquired.vm_id) if (file := group / "pids.max").exists()]
    assert len(pids_max) == (os.geteuid() == 0)
    limits = [file.read_text() for file in pids_max]
    for file in pids_max:
        file.write_text("max")  # as version 2 has it, once the controller was taken away

    console = record_of(killed, acquired.vm_id).with_name("console.log")
    seen = console.stat().st_size

    async def counts_on() -> bool:
        return console.stat().st_size > seen

    await until(counts_on)

    service = home.start()
    try:
        async with open_client(service.socket_path) as client:

            async def all_are_restored() -> bool:
                return (await counters_of(client)).restored == 3

            await until(all_are_restored)
            assert [file.read_text() for file in pids_max] == limits
            assert "max\n" not in limits
            leases = (await client.status()).leases
            assert [lease.labels for lease in leases if lease.lease_id == acquired.lease_id] == [{"job": "7"}]
            left_s = {lease.lease_id: lease.expires_in_s for lease in leases}
            assert 0 < (left_s[acquired.lease_id] or 0) < 600, "what is left of its time, and no more"
            assert 0 < (left_s[returning.lease_id] or 0) <= RECONNECT_S
            assert 0 < (left_s[abandoned.lease_id] or 0) <= RECONNECT_S
            async with hold(client, key="comes back") as again:
                assert (again.lease_id, again.vm_id, again.pid) == (
                    returning.lease_id,
                    returning.vm_id,
                    returning.pid,
                )
                assert await works(client, again.lease_id, "cat /tmp/kept") == "kept\n"
                left_s = {lease.lease_id: lease.expires_in_s for lease in (await client.status()).leases}
                assert left_s[again.lease_id] is None, "held again, for as long as the call lasts"

                assert await works(client, acquired.lease_id, "cat /tmp/kept") == "kept\n"
                assert await client.renew(acquired.lease_id, ttl_s=900) > 600
                assert pids(service).items() >= expected.items()
                await client.release(acquired.lease_id)

            async def only_the_abandoned_is_left() -> bool:
                return [lease.lease_id for lease in (await client.status()).leases] == [abandoned.lease_id]

            await until(only_the_abandoned_is_left)

            async def groups_are_gone() -> bool:
                return not any(file.parent.exists() for file in pids_max)

            await until(groups_are_gone)
    finally:
        home.end(service)


async def test_what_the_release_before_has_recorded_is_adopted_and_recorded_anew(make_home: MakeHome) -> None:
    home = make_home(size=1)
    killed = home.start()
    async with open_client(killed.socket_path) as client:
        leased = await client.acquire(ttl_s=600)
        await until(lambda: is_full_beside(client, leased=1))
        before = pids(killed)
        killed.crash()
    for vm_id in before:
        rewrite_as_version_2(record_of(killed, vm_id))

    service = home.start()
    try:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full_beside(client, leased=1))
            assert pids(service) == before
            assert await works(client, leased.lease_id, "hostname") == f"{leased.vm_id}\n"
            await client.renew(leased.lease_id, ttl_s=300)
            assert json.loads(record_of(service, leased.vm_id).read_text())["version"] == 3
    finally:
        home.end(service)


async def test_what_cannot_be_adopted_is_cleared_away_and_costs_nothing_else(make_home: MakeHome) -> None:
    home = make_home(size=1)
    killed = home.start()
    async with open_client(killed.socket_path) as client:
        sound, dead, corrupt, foreign = [await client.acquire() for _ in range(4)]
        await until(lambda: is_full_beside(client, leased=4))
        (base,) = idle(killed)
        before = pids(killed)
        killed.crash()
    psutil.Process(dead.pid).kill()
    record_of(killed, corrupt.vm_id).write_bytes(b"{")
    record_of(killed, foreign.vm_id).write_bytes(record_of(killed, corrupt.vm_id).read_bytes())
    record_of(killed, base).write_text(record_of(killed, base).read_text().replace(base, sound.vm_id))
    begun = killed.runtime / "vms" / "vm-begun"
    begun.mkdir()
    (begun / "qmp.sock").touch()
    (begun / "cgroups").touch()
    stray = killed.runtime / "vms" / "stray"
    stray.write_text("not ours to remove")

    service = home.start()
    try:
        assert pids(service).keys() & before.keys() == {sound.vm_id}
        async with open_client(service.socket_path) as client:
            assert await works(client, sound.lease_id, "hostname") == f"{sound.vm_id}\n"

            async def dead_is_noticed() -> bool:
                return len((await client.status()).leases) == 1

            await until(dead_is_noticed)
            for vm, end in (
                (dead, "vm_lost: "),
                (corrupt, "no lease"),
                (foreign, "no lease"),
            ):
                with pytest.raises(CallError, match=end):
                    await client.release(vm.lease_id)
            await until(lambda: is_full_beside(client, leased=1))
            stray.unlink()
            left = {entry.name for entry in (service.runtime / "vms").iterdir()}
            assert left == pids(service).keys()
            assert len(left) == 2
            assert times_in_log(service, "a record cannot be used") == 3
            await client.release(sound.lease_id)
            await until(lambda: is_full(client))
    finally:
        home.end(service)


async def is_full_beside(client: Client, *, leased: int) -> bool:
    profile = await profile_of(client)
    return (profile.ready, profile.leased, profile.stopping) == (profile.size, leased, 0)


async def test_a_boot_and_a_hand_out_under_way_are_ended(make_home: MakeHome) -> None:
    """A hand-out lasts milliseconds; that of a VM whose QEMU does not answer lasts until that is given up."""
    home = make_home(producer="direct", size=1)
    killed = home.start()
    async with open_client(killed.socket_path) as client:
        await until(lambda: is_full(client))
        ((base, process),) = killed.qemus().items()
        process.suspend()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, client)

            async def on_its_way() -> bool:
                return not record_of(killed, base).exists()

            async def one_boots() -> bool:
                return len(killed.qemus()) == 2

            await until(on_its_way)
            nursery.start_soon(refused, client)  # has the pool make one more
            await until(one_boots)
            before = pids(killed)
            groups = [group for vm_id in before for group in groups_of(killed, vm_id)]
            killed.crash()

    service = home.start()
    try:
        assert not pids(service).keys() & before.keys(), "ended before the service is ready"
        assert not any(group.exists() for group in groups)
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))
            assert (await counters_of(client)).adopted == 0
    finally:
        home.end(service)


async def refused(client: Client) -> None:
    with pytest.raises(ServiceUnavailableError):
        await client.acquire(on_empty=OnEmpty.BOOT)


async def test_killed_again_and_again_even_while_it_recovers(make_home: MakeHome) -> None:
    home = make_home(size=2)
    first = home.start()
    async with open_client(first.socket_path) as client:
        leased = await client.acquire(ttl_s=600)
        await output(client, leased.lease_id, "echo kept >/tmp/kept")
        await until(lambda: is_full_beside(client, leased=1))
        before = pids(first)
        assert len(before) == 3
        first.crash()

    # One that does not answer keeps the recovery from being over.
    slow = psutil.Process(before[min(idle(first))])
    slow.suspend()
    for runs in range(1, 4):
        interrupted = home.launch()

        async def recovers(service: RunningService = interrupted, runs: int = runs) -> bool:
            return times_in_log(service, "adopting VMs of an earlier run") == runs

        await until(recovers)
        interrupted.crash()
    home.drop_notices()
    slow.resume()

    service = home.start()
    try:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full_beside(client, leased=1))
            counters = await counters_of(client)
            assert (counters.adopted, counters.produced, counters.restored) == (2, 2, 1), service.log.read_text()
            assert pids(service) == before
            assert await works(client, leased.lease_id, "cat /tmp/kept") == "kept\n"
            await client.release(leased.lease_id)
            await until(lambda: is_full(client))
    finally:
        home.end(service)


async def test_a_successor_takes_over_from_a_service_that_has_callers(make_home: MakeHome) -> None:
    home = make_home(size=2)
    first = home.start()
    async with open_client(first.socket_path) as client, hold(client, key="holder") as held:
        leased = await client.acquire(ttl_s=600)
        await until(lambda: is_full_beside(client, leased=2))
        before = pids(first)
        assert len(before) == 4
        async with client.exec(leased.lease_id, ["sh", "-c", "echo kept >/tmp/kept; cat /tmp/kept; sleep 1000"]) as run:
            events = run.events()
            await anext(events)
            second = home.launch("--takeover")
            with pytest.raises(CallError) as ended:
                async for _ in events:
                    pass
            assert ended.value.status == "UNAVAILABLE"
    try:
        assert first.process.wait(STOP_LIMIT_S) == 0
        assert [home.notices.recv(4096) for _ in range(2)] == [b"STOPPING=1", b"READY=1"]
        async with open_client(second.socket_path) as client, hold(client, key="holder") as again:
            assert again.lease_id == held.lease_id
            await until(lambda: is_full_beside(client, leased=2))
            counters = await counters_of(client)
            assert (counters.adopted, counters.produced, counters.restored) == (2, 2, 2)
            assert pids(second) == before
            assert await works(client, leased.lease_id, "cat /tmp/kept") == "kept\n"
            await client.release(leased.lease_id)
    finally:
        home.end(second)
