"""A VMCache server on a real socket, over VMs that are only records."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import trio
import trio.testing

from pool.kata.cache.client import WaitingVm
from pool.kata.cache.endpoint import open_cache_endpoint
from pool.kata.cache.server import BaseVm, CacheServer, serve_cache
from pool.kata.cache.wire import Bridge
from pool.kata.records.config import VMConfig
from pool.kata.records.gojson import decode
from pool.observe.spans import NO_SPANS, Spans
from tests.unit.kata.configs import sample


def base_vm(number: int, *, context_id: int = 0, katas_agent: bool = True) -> BaseVm:
    home = Path(f"/run/vc/vm/vm-{number}")
    return BaseVm(
        id=f"vm-{number}",
        pid=1000 + number,
        qmp_socket=home / "qmp.sock",
        vcpus=2,
        max_vcpus=4,
        memory_mib=2048,
        uuid="u",
        context_id=context_id,
        katas_agent=katas_agent,
        bridges=(Bridge(id="pci-bridge-0", type="pci", addr=2, max_capacity=30),),
    )


class Source:
    """VMs are added by `add`. Every VM is ready, taken, discarded or given away."""

    def __init__(self, *ready: BaseVm) -> None:
        self.ready = list(ready)
        self.discarded: list[BaseVm] = []
        self.given_away: list[BaseVm] = []
        self.broken: Exception | None = None
        self.quits = trio.Event()
        self.waiting = 0
        self._changed = trio.Event()

    def config(self) -> VMConfig:
        return decode(VMConfig, sample("current-VMConfig-Data"))

    def add(self, vm: BaseVm) -> None:
        self.ready.append(vm)
        self._changed.set()
        self._changed = trio.Event()

    async def take_base(self) -> BaseVm:
        self.waiting += 1
        try:
            while not self.ready:
                if self.broken:
                    raise self.broken
                await self._changed.wait()
        finally:
            self.waiting -= 1
        return self.ready.pop(0)

    def discard(self, vm: BaseVm) -> None:
        self.discarded.append(vm)

    def give_away(self, vm: BaseVm) -> None:
        self.given_away.append(vm)

    def statuses(self) -> list[WaitingVm]:
        return [WaitingVm(pid=vm.pid, vcpus=vm.vcpus, memory_mib=vm.memory_mib) for vm in self.ready]

    def request_quit(self) -> None:
        assert not self.quits.is_set()
        self.quits.set()


@attrs.define(eq=False, kw_only=True)
class ServedCache:
    path: Path
    source: Source
    server: CacheServer

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            while not condition():
                await trio.testing.wait_all_tasks_blocked(0.001)


@contextlib.asynccontextmanager
async def serving_cache(directory: Path, *ready: BaseVm, spans: Spans = NO_SPANS) -> AsyncIterator[ServedCache]:
    """Ended at the end, with whoever waits."""
    path, source = directory / "cache.sock", Source(*ready)
    with open_cache_endpoint(path) as listener:
        async with trio.open_nursery() as nursery:
            server: CacheServer = await nursery.start(
                lambda task_status: serve_cache(source=source, sock=listener, spans=spans, task_status=task_status)
            )
            yield ServedCache(path=path, source=source, server=server)
            server.stop()
    assert not path.exists()
