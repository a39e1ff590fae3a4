"""`vmpool watch`, against a real server with simulated VMs."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from tests.running import at_a_terminal, vmpool_argv
from tests.unit.cli.command import environment
from tests.unit.rpc.served import Served


@attrs.define(eq=False)
class Watching:
    process: trio.Process
    _rest: bytes = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        with trio.fail_after(20):
            while b"\n" not in self._rest:
                data = await self.process.stdout.receive_some()
                assert data, "the watch has ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def line_with(self, *words: str) -> str:
        while True:
            line = await self.line()
            if all(word in line for word in words):
                return line

    async def object_of(self, kind: str) -> dict[str, Any]:
        while True:
            found: dict[str, Any] = json.loads(await self.line())
            if found["kind"] == kind:
                return found

    async def ended(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        with trio.fail_after(20):
            said = b"".join([chunk async for chunk in self.process.stderr])
            return await self.process.wait(), said.decode()


@contextlib.asynccontextmanager
async def watching(served: Served, *options: str) -> AsyncIterator[Watching]:
    process = await trio.lowlevel.open_process(
        at_a_terminal(vmpool_argv("watch", *options)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(served.path),
    )
    try:
        yield Watching(process)
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                await pipe.aclose()


async def test_the_pools_and_then_one_line_for_each_change(served: Served) -> None:
    async with watching(served) as watch, served.client() as client:
        assert (await watch.line()).split()[:3] == ["profile", "size", "ready"]
        assert (await watch.line()).split()[:3] == ["default", "2", "2"]
        assert {(await watch.line()).split()[3] for _ in range(2)} == {"ready"}

        vm = await client.acquire()
        assert await watch.line_with("granted") == f"lease  {vm.lease_id}  {vm.vm_id}  default  granted"
        await client.release(vm.lease_id)
        assert (await watch.line_with("ended")).startswith(f"lease  {vm.lease_id}  {vm.vm_id}  default  ended  ")
        await watch.line_with("vm", vm.vm_id, "gone")
        await client.resize("default", 3)
        assert await watch.line_with("resized") == "profile  default  resized  3"


async def test_json_has_one_object_to_a_line(served: Served) -> None:
    async with watching(served, "--json") as watch, served.client() as client:
        snapshot = await watch.object_of("snapshot")
        assert [(vm["profile"], vm["state"]) for vm in snapshot["vms"]] == [("default", "ready")] * 2
        assert snapshot["profiles"][0]["circuit"] == "closed"

        vm = await client.acquire()
        granted = await watch.object_of("lease")
        assert 0 < granted.pop("took_s") < 60
        assert granted == {
            "kind": "lease",
            "lease_id": vm.lease_id,
            "vm_id": vm.vm_id,
            "profile": "default",
            "change": "granted",
            "reason": None,
            "detail": "",
            "labels": {},
        }
        await client.drain("default")
        assert (await watch.object_of("profile"))["change"] == "drained"
        stopped = await watch.object_of("vm")
        assert (stopped["state"], stopped["reason"]) == ("stopping", "drain")


async def test_ctrl_c_ends_it(served: Served) -> None:
    async with watching(served) as watch:
        await watch.line()
        watch.process.send_signal(signal.SIGINT)
        assert await watch.ended() == (130, "vmpool: interrupted\n")
    await served.until(lambda: served.server.statistics().connections == 0)


async def test_a_reader_who_leaves_ends_it_though_nothing_happens(served: Served) -> None:
    async with watching(served) as watch:
        await watch.line_with("ready")
        assert watch.process.stdout is not None
        await watch.process.stdout.aclose()
        assert await watch.ended() == (128 + signal.SIGPIPE, "")
    await served.until(lambda: served.server.statistics().connections == 0)


async def test_a_reader_who_leaves_a_socket_ends_it_with_the_next_change(served: Served) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await trio.lowlevel.open_process(
            vmpool_argv("watch"), stdout=theirs, stderr=subprocess.PIPE, env=environment(served.path)
        )
    async with process.stderr as stderr:  # type: ignore[union-attr]
        await served.until(lambda: served.server.statistics().calls == 1)
        async with served.client() as client:
            await client.resize("default", 1)
            with trio.fail_after(20):
                said = b"".join([chunk async for chunk in stderr])
                assert (await process.wait(), said) == (128 + signal.SIGPIPE, b"")


async def test_an_output_that_cannot_be_written_to_is_told(served: Served) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123, ASYNC230 - it takes no time
        done = await trio.run_process(
            vmpool_argv("watch"), stdout=full, capture_stderr=True, check=False, env=environment(served.path)
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "vmpool: cannot write to stdout: No space left on device\n"


async def test_a_service_that_stops_is_told(served: Served) -> None:
    async with watching(served) as watch:
        await watch.line()
        served.server.stop()
        assert await watch.ended() == (1, "vmpool: the service is shutting down; try again later\n")
