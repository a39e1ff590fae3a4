"""`vmpool mcp`, driven by MCP's own client over stdio, with a service of simulated VMs."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import psutil
import pytest
import trio
from mcp import MCPError

from tests.frameworks.mcp_server.client import model
from tests.frameworks.mcp_server.files import work_with_files
from tests.unit.rpc.served import serving
from vmm.simulated import programs

LIMIT_S: Final = 60

TOOLS: Final = {
    "create_vm",
    "list_vms",
    "end_vm",
    "run_command",
    "start_process",
    "process_output",
    "stop_process",
    "write_file",
    "read_file",
    "list_files",
}


async def test_the_tools_have_schemas_and_say_what_they_change(vm_home: Path) -> None:
    async with model(vm_home / "none.sock") as there:
        tools = {tool.name: tool for tool in (await there.client.list_tools()).tools}
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert tool.output_schema is not None
        assert tool.description
        assert len(tool.description) < 400
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
    reading = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
    assert reading == {"list_vms", "process_output", "read_file", "list_files"}


async def test_ports_are_opened_only_where_that_is_allowed(vm_home: Path) -> None:
    async with model(vm_home / "none.sock", "--allow-forward") as there:
        tools = {tool.name for tool in (await there.client.list_tools()).tools}
    assert tools == TOOLS | {"expose_port"}


async def test_without_a_service_it_says_how_to_start_one(vm_home: Path) -> None:
    async with model(vm_home / "none.sock") as there:
        said = await there.refused("create_vm")
    assert "the socket does not exist; start the service with `vmpool serve`" in said


async def test_a_command_in_a_vm(vm_home: Path) -> None:
    async with serving(vm_home) as served:
        async with model(served.path) as there:
            created = await there.call("create_vm", environment={"COLOUR": "blue"})
            assert (created["profile"], created["vcpus"]) == ("default", 1)
            assert await there.call("list_vms") == {"vms": [created], "most": 4}
            done = await there.call("run_command", command=["cat"], stdin="hello\n")
            assert (done["exit_status"], done["stdout"], done["left_out"]) == (0, "hello\n", 0)
            assert await there.call("end_vm") == {"vm": created["vm"]}
            assert served.lost()
            assert "create one with create_vm" in await there.refused("run_command", command="true")
        await served.until(served.lost)


async def test_its_vms_end_with_its_client(vm_home: Path) -> None:
    async with serving(vm_home) as served:
        async with model(served.path) as there:
            await there.call("create_vm")
            await there.call("create_vm", name="second")
            assert len(served.coordinator.leases()) == 2
        await served.until(served.lost)


async def test_no_more_vms_than_allowed(vm_home: Path) -> None:
    async with serving(vm_home) as served, model(served.path, "--max-vms", "1") as there:
        await there.call("create_vm")
        assert "there may be 1 at a time: end one with end_vm" in await there.refused("create_vm")
        await there.call("end_vm")
        await there.call("create_vm")


async def test_of_several_vms_one_must_be_named(vm_home: Path) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        first, second = await there.call("create_vm"), await there.call("create_vm")
        said = await there.refused("run_command", command="true")
        assert f"one must be named as `vm`; there are: {first['vm']}, {second['vm']}" in said
        assert "there is no VM 'third'" in await there.refused("end_vm", vm="third")
        await there.call("end_vm", vm=first["vm"])
        assert (await there.call("list_vms"))["vms"] == [second]


async def test_long_output_is_cut_and_that_is_said(vm_home: Path) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        await there.call("create_vm")
        done = await there.call("run_command", command=["cat"], stdin="x" * 100_000)
    assert done["left_out"] == 100_000 - 32 * 1024
    assert f"[{done['left_out']} bytes left out]" in done["stdout"]


@attrs.define
class Endless:
    """A program that runs until it is killed."""

    begun: trio.Event = attrs.field(factory=trio.Event)
    killed: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, process: programs.GuestProcess) -> int:
        await process.print("begun")
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.killed.set()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    assert isinstance(programs.PROGRAMS, dict)
    program = Endless()
    monkeypatch.setitem(programs.PROGRAMS, "endless", program.run)
    return program


async def test_files(vm_home: Path) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        await there.call("create_vm")
        await work_with_files(there)


async def test_a_process_in_the_background(vm_home: Path) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        await there.call("create_vm")
        process = (await there.call("start_process", command=["echo", "hello"]))["process"]
        output = await there.call("process_output", process=process, wait=60)
        assert (output["running"], output["exit_status"], output["stdout"]) == (False, 0, "hello\n")
        process = (await there.call("start_process", command=["sleep", "1000"]))["process"]
        assert (await there.call("process_output", process=process))["running"]
        assert await there.call("stop_process", process=process) == {"exit_status": None, "signal": 15}


async def test_a_call_that_is_cancelled_ends_its_command(vm_home: Path, endless: Endless) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        await there.call("create_vm")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(there.result, "run_command", command=["endless"]))
            await endless.begun.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(LIMIT_S):
            await endless.killed.wait()
        done = await there.call("run_command", command=["echo", "still here"])
        assert done["stdout"] == "still here\n"


async def test_a_call_that_is_cancelled_does_not_wait_for_a_vm_any_more(vm_home: Path) -> None:
    async with serving(vm_home, boot_s=1000.0) as served, model(served.path) as there:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.result, "create_vm")
            await served.until(lambda: served.coordinator.views()[0].waiting == 1)
            nursery.cancel_scope.cancel()
        await served.until(served.lost)
        assert (await there.call("list_vms"))["vms"] == []


async def test_a_client_that_waits_is_told_so(vm_home: Path) -> None:
    said: list[str | None] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        said.append(message)

    async with serving(vm_home) as served, model(served.path) as there:
        await there.client.call_tool("create_vm", {}, progress_callback=told)
    assert said == ["waiting for a VM"]


# -- however it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_a_signal_ends_the_server_and_its_vms(vm_home: Path, number: signal.Signals) -> None:
    async with serving(vm_home) as served, model(served.path) as there:
        await there.call("create_vm")
        (process,) = psutil.Process().children()
        process.send_signal(number)
        await served.until(served.lost)
        with trio.fail_after(LIMIT_S), pytest.raises(MCPError, match="Connection closed"):
            while True:
                await there.call("list_vms")


_CLIENT: Final = r"""
import asyncio, sys
from tests.frameworks.mcp_server.client import model
from tests.frameworks.mcp_server.files import work_with_files

async def main():
    async with model(sys.argv[1]) as there:
        await there.call("create_vm")
        sys.stdout.write("created\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_client_that_is_killed_leaves_no_vm_and_no_server(vm_home: Path) -> None:
    async with serving(vm_home) as served, trio.open_nursery() as nursery:
        client: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-c", _CLIENT, str(served.path)],
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        assert client.stdout is not None
        with trio.fail_after(LIMIT_S):
            assert await client.stdout.receive_some() == b"created\n"
        (server,) = psutil.Process(client.pid).children()
        assert len(served.coordinator.leases()) == 1
        client.kill()
        await served.until(served.lost)
        with trio.fail_after(LIMIT_S):
            await trio.to_thread.run_sync(server.wait)
