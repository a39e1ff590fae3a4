"""Files, trees and ports of a leased VM, beside the same bytes through a command."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

import vmpool
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.service import profile, running, settled, until

_MIB: Final = 2**20
_FILE_MIB: Final = 64
_SIZE: Final = _FILE_MIB * _MIB
_TREE: Final = 1000
_CALLS: Final = 5
_PORT: Final = 7000

CASES: Final = (
    Case(name="files/stat", what="one call that looks at a file of a leased VM"),
    Case(name="files/small", what="1 KiB written to a file, whole under its name; part: read again"),
    Case(name="files/write", what=f"{_FILE_MIB} MiB to a file", unit=Unit.BYTES_PER_SECOND),
    Case(name="files/write-by-cat", what="the same through the stdin of `cat > FILE`", unit=Unit.BYTES_PER_SECOND),
    Case(name="files/read", what=f"{_FILE_MIB} MiB of a file", unit=Unit.BYTES_PER_SECOND),
    Case(name="files/read-by-cat", what="the same through the stdout of `cat FILE`", unit=Unit.BYTES_PER_SECOND),
    Case(name="files/tree-in", what=f"a tree of {_TREE} files of 1 KiB into the VM, in files", unit=Unit.PER_SECOND),
    Case(name="files/tree-out", what="the same tree out of it, in files", unit=Unit.PER_SECOND),
    Case(name="ports/connect", what="a connection to a server in the VM, 1 KiB there and back, closed"),
)

_ECHO: Final = f"""
import socket
server = socket.create_server(("127.0.0.1", {_PORT}), backlog=64)
while True:
    connection, _ = server.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
"""


async def _pieces() -> AsyncIterator[bytes]:
    piece = os.urandom(_MIB)
    for _ in range(_FILE_MIB):
        yield piece


def _make_tree(root: Path) -> None:
    for number in range(_TREE):
        directory = root / f"d{number % 20}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(bytes(1024))


@attrs.frozen(kw_only=True)
class _Lease:
    """A leased VM, and what is measured in it."""

    vm: vmpool.Vm
    home: Path
    """Of the files on this side."""

    async def stat(self, turn: Turn) -> None:
        for _ in range(_CALLS):
            began = time.perf_counter()
            await self.vm.files.stat("/etc/passwd")
            turn.record(time.perf_counter() - began)

    async def small(self, turn: Turn) -> None:
        for _ in range(_CALLS):
            began = time.perf_counter()
            await self.vm.files.write("/root/small", bytes(1024))
            written = time.perf_counter()
            await self.vm.files.read("/root/small")
            turn.record(written - began)
            turn.record(time.perf_counter() - written, part="read")

    async def write(self, turn: Turn) -> None:
        began = time.perf_counter()
        await self.vm.files.write("/root/large", _pieces())
        turn.record(_SIZE / (time.perf_counter() - began))

    async def write_by_cat(self, turn: Turn) -> None:
        began = time.perf_counter()
        async with self.vm.exec("cat > /root/large") as process, trio.open_nursery() as nursery:
            nursery.start_soon(process.wait)
            async for piece in _pieces():
                await process.send_stdin(piece)
            await process.close_stdin()
        turn.record(_SIZE / (time.perf_counter() - began))

    async def read(self, turn: Turn) -> None:
        await self.vm.files.write("/root/large", _pieces())
        began = time.perf_counter()
        seen = 0
        async with self.vm.files.open_read("/root/large") as pieces:
            async for piece in pieces:
                seen += len(piece)
        assert seen == _SIZE
        turn.record(_SIZE / (time.perf_counter() - began))

    async def read_by_cat(self, turn: Turn) -> None:
        await self.vm.files.write("/root/large", _pieces())
        began = time.perf_counter()
        seen = 0
        async with self.vm.exec(["cat", "/root/large"]) as process:
            async for event in process.events():
                if isinstance(event, vmpool.Output):
                    seen += len(event.data)
        assert seen == _SIZE
        turn.record(_SIZE / (time.perf_counter() - began))

    async def tree_in(self, turn: Turn) -> None:
        began = time.perf_counter()
        await self.vm.files.upload(self.home / "tree", "/root/tree")
        turn.record(_TREE / (time.perf_counter() - began))

    async def tree_out(self, turn: Turn) -> None:
        await self.vm.files.upload(self.home / "tree", "/root/tree")
        out = self.home / "out"
        began = time.perf_counter()
        await self.vm.files.download("/root/tree", out)
        turn.record(_TREE / (time.perf_counter() - began))
        await trio.to_thread.run_sync(shutil.rmtree, out)

    async def connect(self, turn: Turn) -> None:
        for _ in range(_CALLS):
            began = time.perf_counter()
            async with self.vm.connect_port(_PORT) as stream:
                await stream.send(bytes(1024))
                await stream.send_eof()
                while await stream.receive():
                    pass
            turn.record(time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, bench.home / "tree", ignore_errors=True)
        home, caller = await stack.enter_async_context(running(bench, profile(bench, size=1, producer="template")))
        await until(home, caller, settled)
        pool = await stack.enter_async_context(vmpool.connect(home.socket_path))
        vm = await stack.enter_async_context(pool.vm(memory_mib=1024))
        await until(home, caller, lambda status: status.ready == 1)
        await trio.to_thread.run_sync(_make_tree, bench.home / "tree")
        await vm.start(["python3", "-c", _ECHO], tag="echo")
        await vm.wait_port(_PORT)
        lease = _Lease(vm=vm, home=bench.home)
        samplers = (
            *(lease.stat, lease.small, lease.write, lease.write_by_cat, lease.read, lease.read_by_cat),
            *(lease.tree_in, lease.tree_out, lease.connect),
        )
        yield {case.name: sampler for case, sampler in zip(CASES, samplers, strict=True)}


EXPERIMENT: Final = Experiment(name="files", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=5, quick_rounds=1)
