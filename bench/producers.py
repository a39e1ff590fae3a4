"""What a template saves, in one run on this host: time until ready, memory, and the cost of a miss.

    .venv/bin/python -m bench.producers [--rounds N]

Direct boots and clones alternate, so that a host whose speed drifts treats both alike. Ratios of medians are what to
quote; the absolute times are this host's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import psutil
import trio
from rich.console import Console
from rich.table import Table

from actors.direct import DirectBootProducer
from actors.machine import ResolvedMachine
from actors.producer import BaseVm
from actors.template import TemplateProducer
from pool.config import ProfileSettings
from pool.machines import MachineResolver
from pool.paths import cache_directory, default_image_directory
from vmm.qemu.launch import launch
from vmm.template.backend import QemuTemplates
from vmm.template.store import TemplateStore

MIB = 2**20


@attrs.define(kw_only=True)
class Samples:
    """Seconds, and MiB."""

    direct_s: list[float] = attrs.field(factory=list)
    clone_s: list[float] = attrs.field(factory=list)
    filled_shell_s: list[float] = attrs.field(factory=list)
    direct_rss: list[float] = attrs.field(factory=list)
    clone_pss: list[float] = attrs.field(factory=list)


async def timed(make: Callable[[], Awaitable[BaseVm]]) -> tuple[float, BaseVm]:
    began = trio.current_time()
    base = await make()
    return trio.current_time() - began, base


async def measure(rounds: int, home: Path) -> Samples:
    samples = Samples()
    resolver = MachineResolver(
        profile=ProfileSettings(max_vcpus=4, max_memory_mib=1024),
        image_directory=default_image_directory(),
        trial_directory=home,
        cache_directory=cache_directory(),
    )
    machine: ResolvedMachine = await resolver.resolve()

    async def resolved() -> ResolvedMachine:
        return machine

    direct = DirectBootProducer(resolve=resolved, launch=launch, vms_directory=home, boot_timeout_s=120)
    template = TemplateProducer(
        resolve=resolved,
        backend=QemuTemplates(store=TemplateStore(home / "template" / "bench")),
        launch=launch,
        vms_directory=home,
        new_vm_id=lambda: "template-vm",
        boot_timeout_s=120,
        fallback=False,
    )
    clones: list[BaseVm] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(direct.run)
        await nursery.start(template.run)
        for number in range(rounds):
            seconds, base = await timed(partial(direct.produce, vm_id=f"direct-{number}", nursery=nursery))
            samples.direct_s.append(seconds)
            samples.direct_rss.append(psutil.Process(base.vm.pid).memory_info().rss / MIB)
            await base.vm.stop()

            seconds, base = await timed(partial(template.produce, vm_id=f"clone-{number}", nursery=nursery))
            samples.clone_s.append(seconds)
            clones.append(base)

            shell = await template.start_shell(vm_id=f"shell-{number}", nursery=nursery)
            seconds, base = await timed(partial(template.fill_shell, shell, nursery=nursery))
            samples.filled_shell_s.append(seconds)
            await base.vm.stop()
        samples.clone_pss = [psutil.Process(base.vm.pid).memory_full_info().pss / MIB for base in clones]
        for base in clones:
            await base.vm.stop()
        nursery.cancel_scope.cancel(reason="all is measured")
    return samples


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit}  ({min(values):.3g} .. {max(values):.3g})"


def show(samples: Samples, *, rounds: int) -> None:
    direct, clone, filled = (
        statistics.median(values) for values in (samples.direct_s, samples.clone_s, samples.filled_shell_s)
    )
    rss, pss = statistics.median(samples.direct_rss), statistics.median(samples.clone_pss)
    table = Table(
        title=f"{rounds} rounds, medians (min .. max), {os.cpu_count()} cores", box=None, title_justify="left"
    )
    for column in ("", "measured", "ratio", "target"):
        table.add_column(column)
    table.add_row("direct boot until ready", spread(samples.direct_s, "s"), "", "")
    table.add_row("clone until ready", spread(samples.clone_s, "s"), f"1/{direct / clone:.1f} of direct", "1/20")
    table.add_row("miss, from a shell", spread(samples.filled_shell_s, "s"), f"{filled / clone:.2f} of a clone", "0.75")
    table.add_row("RSS of a direct VM", spread(samples.direct_rss, "MiB"), "", "")
    table.add_row(
        f"PSS of one of {rounds} idle clones",
        spread(samples.clone_pss, "MiB"),
        f"{pss / rss:.2f} of direct RSS",
        "0.25",
    )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="vmpool-bench-", dir="/dev/shm") as home:
        samples = trio.run(measure, rounds, Path(home))
        left = sorted(path.name for path in Path(home).iterdir() if path.name != "template")
        if left:
            raise SystemExit(f"left behind: {left}")
    show(samples, rounds=rounds)


if __name__ == "__main__":
    main()
