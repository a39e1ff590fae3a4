"""python -m tests.soak.carried [MIB [ENTRIES]]: a large file and a large tree into a real VM and out of it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import trio

import vmpool
from tests.integration.service.templates import config
from tests.running import RunningService, running_service
from tests.soak.memory import MOST_GROWTH_MIB, Peak
from tests.templates import place_for_template
from tests.trees import make_tree, seen

MEMORY_MIB: Final = 2560
"""Of the VM: its files are in memory."""

WAIT_S: Final = 600
MIB: Final = 2**20
FILE: Final = "/root/large"


class Carrying:
    """What is done, in turn, and the faults that were found."""

    def __init__(self, service: RunningService, vm: vmpool.Vm, mib: int) -> None:
        self._service = service
        self._vm = vm
        self._mib = mib
        self.faults: list[str] = []

    async def file(self) -> None:
        await self._vm.files.write(FILE, b"")  # modules are loaded, connections made
        with self._measured("files.write"):
            await self._vm.files.write(FILE, self._data())
        await self._vm.files.remove(FILE)
        with self._measured("stdin of cat > FILE"):
            await self._into_cat()
        await self._vm.run(f"rm {FILE}; truncate -s {self._mib}M {FILE}", check=True)
        with self._measured("files.read"):
            async with self._vm.files.open_read(FILE) as pieces:
                self._check(sum([len(piece) async for piece in pieces]))
        with self._measured("stdout of cat FILE"):
            self._check(await self._from_cat())
        await self._vm.files.remove(FILE)

    async def tree(self, entries: int) -> None:
        with tempfile.TemporaryDirectory(prefix="vmpool-") as name:
            there, back = Path(name) / "there", Path(name) / "back"
            await trio.to_thread.run_sync(make_tree, there, entries)
            began = time.monotonic()
            await self._vm.files.upload(there, "/root/tree", owners=True)
            up = time.monotonic()
            await self._vm.files.download("/root/tree", back)
            down = time.monotonic()
            say(f"a tree of {entries} entries: up {up - began:.1f} s, down {down - up:.1f} s")
            before, after = await trio.to_thread.run_sync(seen, there), await trio.to_thread.run_sync(seen, back)
        different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if different:
            self.faults.append(f"{len(different)} entries came back otherwise: {different[:5]}")

    async def _data(self) -> AsyncIterator[bytes]:
        piece = os.urandom(MIB)
        for _ in range(self._mib):
            yield piece

    async def _into_cat(self) -> None:
        async with self._vm.exec(f"cat > {FILE}") as process, trio.open_nursery() as nursery:
            nursery.start_soon(process.wait)
            async for piece in self._data():
                await process.send_stdin(piece)
            await process.close_stdin()

    async def _from_cat(self) -> int:
        async with self._vm.exec(["cat", FILE]) as process:
            return sum([len(event.data) async for event in process.events() if isinstance(event, vmpool.Output)])

    def _check(self, size: int) -> None:
        if size != self._mib * MIB:
            self.faults.append(f"{size} bytes came of {self._mib} MiB")

    @contextlib.contextmanager
    def _measured(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        with Peak(self._service.process.pid) as of_service, Peak() as of_client:
            yield
        took = time.monotonic() - began
        growth = {"service": of_service.growth_mib, "client": of_client.growth_mib}
        say(
            f"{what}: {self._mib / took:.1f} MiB/s, "
            + ", ".join(f"{who} +{mib:.1f} MiB" for who, mib in growth.items())
        )
        self.faults += [f"{what}: {who} grew by {mib:.1f} MiB" for who, mib in growth.items() if mib > MOST_GROWTH_MIB]


async def carry(service: RunningService, mib: int, entries: int) -> list[str]:
    async with (
        vmpool.connect(service.socket_path) as pool,
        pool.vm(memory_mib=MEMORY_MIB, timeout=WAIT_S) as vm,
    ):
        carrying = Carrying(service, vm, mib)
        await carrying.file()
        await carrying.tree(entries)
        return carrying.faults


def main(mib: int = 1024, entries: int = 10_000) -> int:
    image_directory = Path(os.environ.get("VMPOOL_IMAGE_DIR", "build/image")).absolute()
    with (
        place_for_template() as place,
        running_service(config(place, max_memory_mib=4096), image_directory=image_directory) as service,
    ):
        faults = trio.run(carry, service, mib, entries)
    for fault in faults:
        say(fault)
    return 1 if faults else 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
