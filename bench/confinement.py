"""What the confinement of QEMU costs per VM: its start until QMP answers, and its end. For root.

    .venv/bin/python -m bench.confinement [--rounds N]

All kinds take turns, so that a host whose speed drifts treats them alike. QEMU waits for a state and boots no guest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Final

import attrs
import trio
from rich.console import Console
from rich.table import Table

from pool.config import ProfileSettings
from pool.machines import MachineResolver
from pool.paths import cache_directory, default_image_directory
from vmm.qemu.command_line import Start
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupSetting, decide_cgroups
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.confinement.user import decide_user
from vmm.qemu.instance import Instance
from vmm.spec import MachineSpec

_PROBE: Final = Limits(memory_bytes=2**30, cpus=1, processes=100)


@attrs.define(kw_only=True)
class Samples:
    """Milliseconds."""

    spawn: list[float] = attrs.field(factory=list)
    """`Instance.start`, in which the event loop does nothing else."""
    start: list[float] = attrs.field(factory=list)
    """The same, until QMP answers."""
    end: list[float] = attrs.field(factory=list)


async def once(spec: MachineSpec, home: Path, confinement: Confinement, samples: Samples) -> None:
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        instance = Instance.start(
            spec, vm_id="bench", directory=home / f"bench-{os.getpid()}", start=Start.INCOMING, confinement=confinement
        )
        spawned = trio.current_time()
        await instance.connect_qmp(nursery=nursery)
        answered = trio.current_time()
        await instance.stop()
        ended = trio.current_time()
    samples.spawn.append(1e3 * (spawned - began))
    samples.start.append(1e3 * (answered - began))
    samples.end.append(1e3 * (ended - answered))


async def measure(rounds: int, home: Path, plan: CgroupPlan) -> dict[str, Samples]:
    resolver = MachineResolver(
        profile=ProfileSettings(),
        image_directory=default_image_directory(),
        trial_directory=home,
        cache_directory=cache_directory(),
    )
    spec = resolver.check()
    user = decide_user("auto", euid=0).user
    kinds = {
        "as it is": UNCONFINED,
        "user": Confinement(user=user),
        "cgroups": Confinement(cgroups=plan),
        "user and cgroups": Confinement(user=user, cgroups=plan),
    }
    samples = {name: Samples() for name in kinds}
    for _ in range(rounds):
        for name, confinement in kinds.items():
            await once(spec, home, confinement, samples[name])
    return samples


def show(samples: dict[str, Samples], *, rounds: int, plan: CgroupPlan) -> None:
    what = f"cgroups {plan.version.value if plan.version else 'none'}: {', '.join(c.value for c in plan.places)}"
    table = Table(title=f"{rounds} rounds, medians in ms; {what}", box=None, title_justify="left")
    for column in ("", "spawn", "start", "end"):
        table.add_column(column)
    plain = next(iter(samples.values()))
    for name, found in samples.items():
        cells = []
        for values, base in ((found.spawn, plain.spawn), (found.start, plain.start), (found.end, plain.end)):
            median = statistics.median(values)
            cells.append(f"{median:.1f}  ({median - statistics.median(base):+.1f})")
        table.add_row(name, *cells)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    plan = decide_cgroups(CgroupSetting.AUTO, look_at_host())
    with tempfile.TemporaryDirectory(prefix="vmpool-bench-") as home, occupied(plan, largest=_PROBE) as applied:
        show(trio.run(measure, rounds, Path(home), applied), rounds=rounds, plan=applied)


if __name__ == "__main__":
    main()
