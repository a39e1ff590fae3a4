"""The time until a VM is ready: direct boot, template, clone with and without a shell, each with its baseline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from actors.handout import HandOutProcedure
from actors.producer import BaseVm
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.system.starts import Producers, bare_boot, blank_memory, power_off_initrd, producers, qemu_start, workshop
from vmm.qemu.template.backend import QemuTemplates
from vmm.qemu.template.store import TemplateStore
from vmm.words.wishes import Wishes

CASES: Final = (
    Case(name="start/qemu", what="QEMU itself with a clone's options: spawn to QMP greeting"),
    Case(name="start/restore", what="the bare loop once: spawn QEMU, restore, cont; the guest is not asked"),
    Case(name="start/shell", what="a shell becomes a base VM"),
    Case(name="start/clone", what="a clone until it is a base VM: QEMU's start included"),
    Case(name="start/bare-boot", what="the same kernel with an init that only powers off, until QEMU has ended"),
    Case(name="start/direct", what="a direct boot until it is a base VM"),
    Case(name="start/template", what="a template: boot, rehearsals, rest, save, hashes"),
)


async def _measure(turn: Turn, make: Callable[[], Awaitable[BaseVm]]) -> None:
    """Times the making of a base VM and, as a part, its hand-out."""
    began = time.perf_counter()
    base = await make()
    try:
        turn.record(time.perf_counter() - began)
        await HandOutProcedure().run(base.vm, Wishes())
        turn.record(time.perf_counter() - began, part="handed-out")
    finally:
        await base.vm.stop()


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    bare = bench.home / "bare-initrd"
    power_off_initrd(bare)
    bare.chmod(0o644)
    async with producers(bench) as made, workshop(bench) as shop:
        with blank_memory(bench) as memory:

            async def qemu(turn: Turn) -> None:
                turn.record(await qemu_start(bench, memory=memory))

            async def restore(turn: Turn) -> None:
                began = time.perf_counter()
                instance = await shop.restore()
                turn.record(time.perf_counter() - began)
                await instance.kill()

            async def boot(turn: Turn) -> None:
                turn.record(await bare_boot(bench, initrd=bare))

            yield {
                "start/qemu": qemu,
                "start/restore": restore,
                "start/bare-boot": boot,
                **_of_producers(bench, made),
            }
    bare.unlink()


def _of_producers(bench: Bench, made: Producers) -> dict[str, Sampler]:
    async def clone(turn: Turn) -> None:
        await _measure(turn, lambda: made.template.produce(vm_id="clone", nursery=made.nursery))

    async def shell(turn: Turn) -> None:
        waiting = await made.template.start_shell(vm_id="shell", nursery=made.nursery)
        await _measure(turn, lambda: made.template.fill_shell(waiting, nursery=made.nursery))

    async def direct(turn: Turn) -> None:
        await _measure(turn, lambda: made.direct.produce(vm_id="direct", nursery=made.nursery))

    async def template(turn: Turn) -> None:
        templates = QemuTemplates(store=TemplateStore(bench.home / "b" / "template"))
        began = time.perf_counter()
        await templates.build(bench.machine, fingerprint="b", vm_id="build", directory=bench.home / "build")
        turn.record(time.perf_counter() - began)
        await templates.discard()
        (bench.home / "b").rmdir()

    return {"start/clone": clone, "start/shell": shell, "start/direct": direct, "start/template": template}


EXPERIMENT: Final = Experiment(name="start", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=15, quick_rounds=2)
