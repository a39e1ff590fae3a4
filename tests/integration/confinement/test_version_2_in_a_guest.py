"""Version 2 as a kernel has it. The host may have none of it to give, but a guest's kernel has."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import trio

from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller
from vmm.qemu.launch import launch
from vmm.spec import MachineSpec
from vmm.words.commands import CommandExit, CommandSpec

LIMITS = Limits(memory_bytes=64 * 2**20, cpus=2, processes=50)

UNIT = Path("/tmp/cgroup/unit")


@pytest.fixture(autouse=True)
def _checked_for_leaks(leak_check: None) -> None:
    pass


def script() -> str:
    """What `occupied` and `VmGroup` do, in their order, as files are written and groups joined.

    Between two services, the controllers are taken away and given again, and the limits set anew.
    """
    plan = CgroupPlan(version=CgroupVersion.V2, places=dict.fromkeys(Controller, UNIT))
    group = VmGroup.planned(plan, name="vm", limits=LIMITS)
    (directory,) = group.directories
    restrict = [f"printf %s {shlex.quote(value)} >{path}" for path, value in group.settings.items()]
    show = f"cat {' '.join(map(str, group.settings))}"
    [entrance] = group.entrances(version=CgroupVersion.V2)
    return "\n".join(
        [
            "set -e; mkdir -p /tmp/cgroup; mount -t cgroup2 none /tmp/cgroup",
            "echo '+memory +cpu +pids' >/tmp/cgroup/cgroup.subtree_control",
            f"mkdir {UNIT}; echo 0 >{UNIT}/cgroup.procs; test -e {UNIT}/cgroup.type; test ! -e /tmp/cgroup/cgroup.type",
            f"if echo '+memory' 2>/dev/null >{UNIT}/cgroup.subtree_control; then exit 9; fi  # it has a member",
            f"mkdir {UNIT}/vmpool-service; echo 0 >{UNIT}/vmpool-service/cgroup.procs",
            f"echo '+memory +cpu +pids' >{UNIT}/cgroup.subtree_control",
            f"mkdir {directory}",
            *restrict,
            show,
            f"echo '-memory -cpu -pids' >{UNIT}/cgroup.subtree_control",
            f"echo '+memory +cpu +pids' >{UNIT}/cgroup.subtree_control",
            show,
            *restrict,
            show,
            f"sh -c 'echo 0 >{entrance}; cat /proc/self/cgroup'",
            f"rmdir {directory}",
            f"echo '-memory -cpu -pids' >{UNIT}/cgroup.subtree_control",
            f"echo 0 >{UNIT}/cgroup.procs; rmdir {UNIT}/vmpool-service",
            "cat /proc/self/cgroup",
        ]
    )


async def test_a_kernel_takes_what_we_write(spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
        try:
            done = await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", script()])))
        finally:
            await vm.stop()
    assert (done.exit, done.stderr) == (CommandExit(status=0), b"")
    limits = [str(LIMITS.memory_bytes), "200000 100000", "50"]
    assert done.stdout.decode().splitlines() == [
        *limits,
        "max",
        "max 100000",
        "max",
        *limits,
        "0::/unit/vmpool-vm",
        "0::/unit",
    ]
