"""`vmpool resize`, `drain`, `undrain`, `evict`, `reset`, against a real server with simulated VMs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from pool.rpc.server import ServerSettings
from tests.unit.cli.command import NOBODY, vmpool
from tests.unit.rpc.served import Served, serving
from vmm.simulated import BootFails
from vmpool.client import Change, ProfileChange

COMMANDS = [
    ["resize", "default", "3"],
    ["drain", "default"],
    ["undrain", "default"],
    ["evict", "--profile", "default"],
    ["evict", "vm-1"],
    ["reset", "default"],
]


async def succeeds(served: Served, *arguments: str) -> None:
    done = await vmpool(served.path, *arguments)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


async def test_resize(served: Served) -> None:
    await succeeds(served, "resize", "default", "3")
    await served.until(lambda: served.coordinator.views()[0].ready == 3)
    await succeeds(served, "resize", "default", "1")
    await served.until(lambda: served.coordinator.views()[0].ready == 1)


async def test_drain_and_resume(served: Served) -> None:
    await succeeds(served, "drain", "default")
    await served.until(lambda: not served.host.alive)
    refused = await vmpool(served.path, "acquire")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "profile default is drained; undrain it with `vmpool undrain default`" in refused.stderr

    await succeeds(served, "undrain", "default")
    await served.until(lambda: served.coordinator.views()[0].ready == 2)


async def test_evict_one(served: Served) -> None:
    before = {vm.vm_id for vm in served.coordinator.snapshot().vms}
    gone = min(before)
    await succeeds(served, "evict", gone)
    await served.until(lambda: served.coordinator.views()[0].ready == 2)
    assert before & {vm.vm_id for vm in served.coordinator.snapshot().vms} == before - {gone}


async def test_evict_all_of_a_profile(served: Served) -> None:
    before = {vm.vm_id for vm in served.coordinator.snapshot().vms}
    await succeeds(served, "evict", "--profile", "default")
    await served.until(lambda: before.isdisjoint(vm.vm_id for vm in served.coordinator.snapshot().vms))
    await served.until(lambda: served.coordinator.views()[0].ready == 2)


async def test_reset(vm_home: Path) -> None:
    async with serving(vm_home, faults=lambda _: [BootFails()]) as served, served.client() as client:
        await served.until(lambda: served.coordinator.views()[0].failures_in_a_row > 0)
        async with client.watch() as changes:
            await anext(changes)
            await succeeds(served, "reset", "default")
            with trio.fail_after(20):
                while not is_a_reset(await anext(changes)):
                    pass


def is_a_reset(change: Change) -> bool:
    return isinstance(change, ProfileChange) and "by request" in change.detail


@pytest.mark.parametrize(
    "arguments",
    [[*command[:-1], "huge"] for command in COMMANDS if command[-1] == "default"] + [["resize", "huge", "3"]],
)
async def test_an_unknown_profile_is_named(served: Served, arguments: list[str]) -> None:
    done = await vmpool(served.path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vmpool: profile: there is no profile 'huge'; configured: default\n"


async def test_only_idle_vms_are_evicted(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
    done = await vmpool(served.path, "evict", vm.vm_id)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{vm.vm_id} is leased; only ready VMs can be evicted" in done.stderr
    assert len(served.coordinator.leases()) == 1


async def test_an_unknown_vm_is_named(served: Served) -> None:
    done = await vmpool(served.path, "evict", "vm-none")
    assert done.returncode == 1
    assert "vm_id: there is no VM 'vm-none'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evict"], "Name either a VM, or a profile"),
        (["evict", "vm-1", "--profile", "default"], "Name either a VM, or a profile"),
        (["resize", "default", "-1"], "-1"),
        (["resize", "default", "many"], "'many' is not a valid integer range"),
        (["drain"], "Missing argument 'PROFILE'"),
    ],
)
async def test_bad_input_is_named(vm_home: Path, arguments: list[str], message: str) -> None:
    done = await vmpool(vm_home / "pool.sock", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("arguments", [*COMMANDS, ["watch"]], ids=" ".join)
async def test_without_a_service(vm_home: Path, arguments: list[str]) -> None:
    done = await vmpool(vm_home / "pool.sock", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"vmpool: {vm_home}/pool.sock: the socket does not exist; "
        "start the service with `vmpool serve`, or name its socket\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can call as somebody else")
async def test_others_may_look_but_not_change(vm_home: Path) -> None:
    vm_home.chmod(0o755)  # noqa: ASYNC240 - it takes no time
    async with serving(vm_home, settings=ServerSettings(allowed_uids=frozenset({0, NOBODY}))) as served:
        served.path.chmod(0o666)
        for arguments in COMMANDS:
            done = await vmpool(served.path, *arguments, as_nobody=True)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"uid {NOBODY}" in done.stderr
        assert (await vmpool(served.path, "status", as_nobody=True)).returncode == 0
