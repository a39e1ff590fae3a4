"""Growing real machines: what needs a second look at the same process, and what its memory is good for."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S, qemu_spec
from vmm.errors import HotplugError
from vmm.initramfs.image import GuestImage
from vmm.qemu.adopt import adopt
from vmm.qemu.hotplug import grow
from vmm.qemu.instance import Instance
from vmm.qemu.launch import launch
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.preparation import Preparation

FILL = "data = bytearray(700 << 20); data[::4096] = b'x' * len(data[::4096]); print(data.count(b'x'))"

ROOM = "import shutil; print(shutil.disk_usage('/tmp').total >> 20)"


async def test_an_adopted_vm_grows_and_its_memory_holds_what_is_put_there(
    guest_image: GuestImage, vm_home: Path, nursery: trio.Nursery, leak_check: None
) -> None:
    spec = qemu_spec(guest_image.kernel, guest_image.initrd)
    with trio.fail_after(2 * BOOT_LIMIT_S):
        first = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
        await first.grow(vcpus=2, memory_mib=512)
        await first.detach()
        vm = await (await adopt(first.identity, vm_id="vm", directory=vm_home / "vm")).connect(nursery=nursery)
        try:
            await vm.grow(vcpus=3, memory_mib=1024)
            report = await vm.agent.prepare(Preparation(vcpus=3, memory_mib=1024))
            assert (report.cpus_online, report.memory_online_mib) == (3, 1024)
            filled = await collect(await vm.agent.start_command(CommandSpec(argv=["python3", "-c", FILL])))
            assert (filled.stdout, filled.exit) == (b"%d\n" % (700 * 256), CommandExit(status=0))
            # And there is more room for files, which are memory.
            room = await collect(await vm.agent.start_command(CommandSpec(argv=["python3", "-c", ROOM])))
            assert 500 < int(room.stdout) < 700
            # Channels work as well when their buffers lie in the new memory, where there are no bounce buffers.
            data = bytes(range(256)) * 2**15
            await vm.agent.put_file("/dev/shm/data", data)
            assert await vm.agent.get_file("/dev/shm/data") == data
        finally:
            await vm.stop()


async def test_a_machine_without_room_for_memory_is_given_cpus(
    guest_image: GuestImage, vm_home: Path, nursery: trio.Nursery, leak_check: None
) -> None:
    spec = attrs.evolve(qemu_spec(guest_image.kernel, guest_image.initrd), max_memory_mib=256)
    instance = Instance.start(spec, vm_id="vm", directory=vm_home / "vm")
    try:
        with trio.fail_after(BOOT_LIMIT_S):
            await instance.connect_qmp(nursery=nursery)
        await grow(instance, vcpus=2, memory_mib=256)
        plugged = [slot for slot in await instance.execute("query-hotpluggable-cpus") if "qom-path" in slot]
        assert len(plugged) == 2
        with pytest.raises(HotplugError, match=r"maximum .* is 256 MiB"):
            await grow(instance, vcpus=2, memory_mib=257)
    finally:
        await instance.kill()
