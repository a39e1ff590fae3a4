"""The service over simulated VMs: all of it but QEMU, its guests, and the disk.

    python -m bench.simulated SOCKET SIZE

serves a pool of that size until its stdin ends, and reports on stdout when it is full.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import trio

from actors.direct import DirectBootProducer
from actors.journal import Journal
from actors.machine import ResolvedMachine
from pool.core.coordinator import Coordinator
from pool.ledger.news import News
from pool.ledger.policy import PoolPolicy
from pool.observe.logs import configure_logs
from pool.observe.metrics import Metrics
from pool.observe.news import NewsLog
from pool.rpc.convert import ProfileShape
from pool.rpc.server import serve
from pool.rpc.service import ServiceInfo
from vmm.simulated import SimulatedHost
from vmm.simulated.backend import SimulatedBackend
from vmm.spec import MachineSpec
from vmm.words.kinds import BackendKind, ProductionCost
from vmm.words.machines import Accelerator, AcceleratorSetting

SPEC: Final = MachineSpec(qemu=Path("qemu"), kernel=Path("vmlinuz"), initrd=Path("initrd"), accelerator=Accelerator.TCG)
NOWHERE: Final = Path("/nowhere")
_FULL: Final = b"full\n"
_BOOTS_AT_ONCE: Final = 50
_POLL_S: Final = 0.005


class MemoryDisk:
    """Files in a dictionary. Implements `actors.disk.Disk`."""

    def __init__(self) -> None:
        self._files: dict[Path, bytes] = {}

    def write(self, path: Path, data: bytes) -> None:
        self._files[path] = data

    def rename(self, source: Path, target: Path) -> None:
        self._files[target] = self._files.pop(source)

    def unlink(self, path: Path) -> None:
        del self._files[path]

    def sync_directory(self, directory: Path) -> None:
        """Does nothing: memory needs no sync."""

    def exists(self, path: Path) -> bool:
        return path in self._files

    def read(self, path: Path, *, limit: int) -> bytes:
        return self._files[path][:limit]

    def directories(self, parent: Path) -> list[str]:
        return sorted({path.parent.name for path in self._files if path.parent.parent == parent})


def memory_journal() -> Journal:
    return Journal(
        directory=NOWHERE,
        backend=BackendKind.SIMULATED,
        disk=MemoryDisk(),
        boot_id="simulated",
        now_ns=time.time_ns,
    )


@contextlib.asynccontextmanager
async def simulated_pool(
    *, size: int, boot_s: float = 0.0, readers: tuple[Callable[[News], None], ...] = ()
) -> AsyncIterator[Coordinator]:
    """A coordinator whose pool is full. At the end all its VMs are ended."""
    backend = SimulatedBackend(host=SimulatedHost(boot_s=boot_s))

    async def resolve() -> ResolvedMachine:
        decided = await backend.decide(
            SPEC, accelerator=AcceleratorSetting.TCG, trial_directory=NOWHERE, cache_directory=NOWHERE
        )
        return ResolvedMachine(spec=decided.spec, reason=decided.reason, fingerprint=decided.fingerprint)

    producer = DirectBootProducer(resolve=resolve, launch=backend.launch, vms_directory=NOWHERE, boot_timeout_s=60.0)
    coordinator = Coordinator(
        policies={"default": PoolPolicy(size=size, production_limit=_BOOTS_AT_ONCE, cost=ProductionCost.BOOT)},
        producers={"default": producer},
        journal=memory_journal(),
        readers=readers,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        await nursery.start(coordinator.run)
        await until_full(coordinator)
        yield coordinator
        await coordinator.shut_down()
        nursery.cancel_scope.cancel(reason="the pool is drained")


async def until_full(coordinator: Coordinator) -> None:
    """Waits until the pool is full, and no VM is being made or ended."""
    while True:
        (view,) = coordinator.views()
        if view.ready == view.size and not (view.producing or view.stopping or view.handing_out or view.leased):
            return
        await trio.sleep(_POLL_S)


async def _serve(path: Path, size: int) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(str(path))
    listener.listen(128)
    shape = ProfileShape(vcpus=1, memory_mib=256, max_vcpus=1, max_memory_mib=256)
    news_log = NewsLog()
    async with simulated_pool(size=size, readers=(news_log.tell,)) as coordinator, trio.open_nursery() as logging:
        await logging.start(news_log.run)
        metrics = Metrics(version="simulated", pool=coordinator, available_mib=lambda: None, restarts=dict)
        info = ServiceInfo(version="simulated", shapes={"default": shape}, metrics=metrics)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(coordinator=coordinator, sock=listener, info=info, task_status=task_status)
            )
            with open(os.devnull, "wb") as nobody:  # noqa: PTH123, ASYNC230 - who measures does not read the log
                os.dup2(nobody.fileno(), sys.stderr.fileno())
            sys.stdout.buffer.write(_FULL)
            sys.stdout.buffer.flush()
            await trio.to_thread.run_sync(sys.stdin.buffer.read)
            server.stop()
        logging.cancel_scope.cancel(reason="the service has ended")


@contextlib.asynccontextmanager
async def simulated_service(socket_path: Path, *, size: int, checkout: Path) -> AsyncIterator[None]:
    """Such a service in a process of its own, ended at the end of the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bench.simulated", str(socket_path), str(size)], cwd=checkout, stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = await process.stdout.receive_some()
        if said != _FULL:
            raise RuntimeError(f"the simulated service of {size} VMs did not start; see its output above")
        yield
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()


if __name__ == "__main__":
    gc.freeze()  # as `vmpool serve` does: imported modules stay
    place = Path(sys.argv[1])
    configure_logs(json=True)
    try:
        trio.run(_serve, place, int(sys.argv[2]))
    finally:
        place.unlink()
