"""Other programs that start VMs, in the same rounds as vmpool's own hand-outs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import trio

from bench.baselines import libvirt, quick_sandbox
from bench.calls import Caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.service import Home, profile, running, settled, until
from vmpool.client import OnEmpty

_LIBVIRT: Final = tuple(
    Case(name=f"others/libvirt-{name}", what=what, missing=libvirt.missing)
    for name, what in (
        ("start", "virsh start: until QEMU runs; without waiting for the guest, which boots for seconds more"),
        ("restore", "virsh start after managedsave: until the guest runs again; parts: the save itself"),
        ("resume", "virsh resume after suspend; the guest is neither reseeded nor asked; part: suspend"),
    )
)
_QUICK_SANDBOX: Final = Case(
    name="others/quick-sandbox",
    what="start, its own Alpine guest, until it answers; parts: checkpoint, revert, execute",
    missing=quick_sandbox.missing,
)
_OURS: Final = (
    Case(name="others/vmpool-hand-out", what="Acquire of a ready clone, over gRPC, reseeded and named"),
    Case(name="others/vmpool-clone", what="Acquire when none is ready: a clone is made for it"),
    Case(name="others/vmpool-execute", what="Exec of `true` in it, over gRPC"),
)

_BOOTED_S: Final = 6.0
"""After this a guest without an agent is assumed to have booted, so that a booted guest is saved."""


async def _ours(home: Home, caller: Caller, turn: Turn, *, name: str, execute: bool = False) -> None:
    await until(home, caller, settled)
    began = time.perf_counter()
    vm = await caller.client.acquire(profile=name, on_empty=OnEmpty.BOOT)
    acquired = time.perf_counter()
    if execute:
        async with caller.client.exec(vm.lease_id, ["true"]) as command:
            await command.wait()
        turn.record(time.perf_counter() - acquired)
    else:
        turn.record(acquired - began)
    await caller.client.release(vm.lease_id)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    settings = profile(bench, name="ready", size=1, producer="template")
    settings += profile(bench, name="none", size=0, producer="template")
    async with contextlib.AsyncExitStack() as stack:
        samplers: dict[str, Sampler] = {}
        if bench.wants(*(case.name for case in _OURS)):
            home, caller = await stack.enter_async_context(running(bench, settings))
            samplers["others/vmpool-hand-out"] = lambda turn: _ours(home, caller, turn, name="ready")
            samplers["others/vmpool-clone"] = lambda turn: _ours(home, caller, turn, name="none")
            samplers["others/vmpool-execute"] = lambda turn: _ours(home, caller, turn, name="ready", execute=True)
        if bench.wants(*(case.name for case in _LIBVIRT)):
            samplers |= _of_libvirt(await stack.enter_async_context(libvirt.virsh(bench.home, bench.machine)))
        if bench.wants(_QUICK_SANDBOX.name):
            sandbox = await stack.enter_async_context(quick_sandbox.quick_sandbox(bench.home))

            async def sandboxed(turn: Turn) -> None:
                for part, seconds in (await sandbox.round()).items():
                    turn.record(seconds, part="" if part == "start" else part)

            samplers[_QUICK_SANDBOX.name] = sandboxed
        yield samplers


def _of_libvirt(virsh: libvirt.Virsh) -> dict[str, Sampler]:
    async def booted() -> float:
        seconds = await virsh.start()
        await trio.sleep(_BOOTED_S)
        return seconds

    async def start(turn: Turn) -> None:
        turn.record(await virsh.start())
        await virsh.destroy()

    async def restore(turn: Turn) -> None:
        await booted()
        turn.record(await virsh.save(), part="save")
        turn.record(await virsh.start())
        await virsh.destroy()

    async def resume(turn: Turn) -> None:
        await booted()
        turn.record(await virsh.suspend(), part="suspend")
        turn.record(await virsh.resume())
        await virsh.destroy()

    return {"others/libvirt-start": start, "others/libvirt-restore": restore, "others/libvirt-resume": resume}


EXPERIMENT: Final = Experiment(
    name="others",
    kind=Kind.SYSTEM,
    cases=(*_OURS, *_LIBVIRT, _QUICK_SANDBOX),
    open=_open,
    rounds=5,
    quick_rounds=1,
    warm_up=0,
)
