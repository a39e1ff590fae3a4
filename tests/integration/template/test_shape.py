"""A clone of a small template, handed out as a larger machine."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from tests.agents import collect
from vmm.qemu.template.clone import load_clone, start_shell
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.preparation import RESEED_BYTES, Preparation


async def test_a_clone_is_handed_out_with_more_cpus_and_memory_than_its_template(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery, leak_check: None
) -> None:
    assert (template_spec.vcpus, template_spec.memory_mib) == (1, 256)
    with trio.fail_after(60):
        shell = await start_shell(
            template_spec, template=template, vm_id="clone", directory=vm_home / "clone", nursery=nursery
        )
        vm = await load_clone(shell, template=template, nursery=nursery)
        try:
            await vm.pause()
            await vm.grow(vcpus=3, memory_mib=1024)
            async with trio.open_nursery() as handing_out:
                handing_out.start_soon(vm.resume)
                report = await vm.agent.prepare(Preparation(entropy=os.urandom(RESEED_BYTES), vcpus=3, memory_mib=1024))
            assert (report.reseeded, report.cpus_online, report.memory_online_mib) == (True, 3, 1024)
            script = "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo"
            outcome = await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", script])))
            assert outcome.stdout.split() == [b"3", b"%d" % report.memory_mib]
            assert 900 < report.memory_mib <= 1024
        finally:
            await vm.stop()
    template.check()
