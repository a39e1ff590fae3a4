"""Our QMP client and a real QEMU, cross-checked with QEMU's own client library."""

from __future__ import annotations

import asyncio  # noqa: TID251 - qemu.qmp, the cross-check, is an asyncio library
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from qemu.qmp import QMPClient

from vmm.errors import QmpCommandError, QmpConnectionError, VmExitedError
from vmm.qemu.instance import Instance
from vmm.qemu.qmp import QmpClient
from vmm.spec import MachineSpec

QUERIES = ("query-version", "query-commands", "query-name", "query-hotpluggable-cpus", "query-qmp-schema")


async def test_both_clients_hear_the_same(spec: MachineSpec, vm_home: Path) -> None:
    instance = Instance.start(spec, vm_id="a,b", directory=vm_home / "instance")
    try:
        theirs = await trio.to_thread.run_sync(asyncio.run, _ask_with_reference_client(instance.directory.qmp_socket))
        async with trio.open_nursery() as nursery:
            await instance.connect_qmp(nursery=nursery)
            ours = {query: await instance.execute(query) for query in QUERIES}
            await instance.kill()
    finally:
        await instance.kill()
    assert ours["query-name"] == {"name": "a,b"}
    assert ours == theirs


async def _ask_with_reference_client(path: Path) -> dict[str, Any]:
    client = QMPClient("reference")
    await client.connect(str(path))
    try:
        return {query: await client.execute(query) for query in QUERIES}
    finally:
        await client.disconnect()


async def test_the_greeting_tells_the_version(instance: Instance, vm_home: Path) -> None:
    version = (await instance.execute("query-version"))["qemu"]
    with pytest.raises(QmpCommandError) as caught:
        await instance.execute("no-such-command", argument=1)
    assert caught.value.error_class == "CommandNotFound"
    assert version["major"] >= 7


async def test_a_descriptor_is_passed_and_kept_under_its_name(instance: Instance) -> None:
    read_end, write_end = os.pipe()
    try:
        await instance.execute("getfd", fds=[read_end], fdname="state")
        await instance.execute("closefd", fdname="state")
        with pytest.raises(QmpCommandError, match="state"):
            await instance.execute("closefd", fdname="state")
        with pytest.raises(QmpCommandError, match="No file descriptor"):
            await instance.execute("getfd", fdname="state")
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_events_come_after_subscribing(spec: MachineSpec, vm_home: Path) -> None:
    instance = Instance.start(spec, vm_id="events", directory=vm_home / "events")
    try:
        async with trio.open_nursery() as nursery:
            client = await instance.connect_qmp(nursery=nursery)
            with client.subscribe("STOP", "RESUME") as events:
                await client.execute("stop")
                await client.execute("cont")
                assert [(await events.next()).name, (await events.next()).name] == ["STOP", "RESUME"]
            await instance.kill()
    finally:
        await instance.kill()


async def test_a_cancelled_command_leaves_the_connection_usable(instance: Instance) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(instance.execute, "query-qmp-schema")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert (await instance.execute("query-status"))["running"]


async def test_what_is_asked_of_a_dying_qemu_fails_as_exited(instance: Instance) -> None:
    async def ask_for_ever() -> None:
        while True:
            await instance.execute("query-status")

    async def expect_exit() -> None:
        with pytest.raises(VmExitedError, match="signal 9"):
            await ask_for_ever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_exit)
        await trio.testing.wait_all_tasks_blocked()
        await instance.process.kill()


async def test_a_second_client_waits_for_the_first(instance: Instance, nursery: trio.Nursery) -> None:
    stream = await trio.open_unix_socket(instance.directory.qmp_socket)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as connecting:
            connecting.start_soon(lambda: QmpClient.connect(stream, nursery=nursery))
            await trio.testing.wait_all_tasks_blocked()
            assert (await instance.execute("query-status"))["running"]
            scope.cancel()
    assert scope.cancelled_caught


async def test_no_qemu_behind_the_socket(vm_home: Path, spec: MachineSpec) -> None:
    instance = Instance.start(spec, vm_id="dead", directory=vm_home / "dead")
    await instance.process.kill()
    async with trio.open_nursery() as nursery:
        with pytest.raises(QmpConnectionError, match="QEMU is dead"):
            await instance.connect_qmp(nursery=nursery)
    await instance.stop()
