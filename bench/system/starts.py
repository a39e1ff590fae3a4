"""QEMU's start, restores and boots without a service: the baselines of all other figures."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from actors.direct import DirectBootProducer
from actors.machine import ResolvedMachine
from actors.parking import park
from actors.template import TemplateProducer
from bench.case import Bench
from vmm.contract import Vm
from vmm.initramfs import cpio
from vmm.qemu.command_line import FileMemory, Start
from vmm.qemu.instance import Instance
from vmm.qemu.launch import launch
from vmm.qemu.template.backend import QemuTemplates
from vmm.qemu.template.clone import load_clone, start_shell
from vmm.qemu.template.store import Template, TemplateStore

_TIMEOUT_S: Final = 120.0


@contextlib.contextmanager
def blank_memory(bench: Bench) -> Iterator[int]:
    """A file like a template's memory, without a template in it: enough to start a QEMU that waits for a state."""
    descriptor = os.memfd_create("bench", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, bench.machine.memory_mib * 2**20)
        os.fchmod(descriptor, 0o600)
        yield descriptor
    finally:
        os.close(descriptor)


async def qemu_start(bench: Bench, *, memory: int) -> float:
    """Seconds from the spawn of a QEMU with a clone's options to its QMP greeting. Ends it."""
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        instance = Instance.start(
            bench.machine,
            vm_id="bench",
            directory=bench.home / "start",
            memory=FileMemory(fd=memory, shared=False),
            start=Start.INCOMING,
        )
        try:
            await instance.connect_qmp(nursery=nursery)
            return time.perf_counter() - began
        finally:
            await instance.stop()
            nursery.cancel_scope.cancel(reason="it has ended")


@attrs.define(eq=False, kw_only=True)
class Workshop:
    """Makes VMs by the project's own means, without coordinator, ledger, actors or calls."""

    bench: Bench
    template: Template
    nursery: trio.Nursery
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def name(self) -> str:
        return f"w{next(self._numbers)}"

    async def restore(self) -> Instance:
        """The bare loop's body: spawn QEMU, restore, cont, without a request to the agent. The caller ends it."""
        vm_id = self.name()
        shell = await self._shell(vm_id)
        try:
            await shell.execute("cont")
        except BaseException:
            await shell.kill()
            raise
        return shell

    async def parked(self) -> Vm:
        """The same, up to the state of a pool's VM: its agent has answered, a hand-out was rehearsed, it is paused."""

        async def bring_up() -> Vm:
            shell = await self._shell(self.name())
            return await load_clone(shell, template=self.template, nursery=self.nursery)

        return await park(bring_up, timeout_s=_TIMEOUT_S)

    async def _shell(self, vm_id: str) -> Instance:
        return await start_shell(
            self.bench.machine,
            template=self.template,
            vm_id=vm_id,
            directory=self.bench.home / vm_id,
            nursery=self.nursery,
        )


@contextlib.asynccontextmanager
async def workshop(bench: Bench) -> AsyncIterator[Workshop]:
    """Builds a template first, and removes it in the end."""
    templates = QemuTemplates(store=TemplateStore(bench.home / "w" / "template"))
    template = await templates.build(
        bench.machine, fingerprint="bench", vm_id="template", directory=bench.home / "template-vm"
    )
    try:
        async with trio.open_nursery() as nursery:
            yield Workshop(bench=bench, template=template, nursery=nursery)
            nursery.cancel_scope.cancel(reason="nothing more is made")
    finally:
        with trio.CancelScope(shield=True):
            await templates.discard()
            (bench.home / "w").rmdir()


@attrs.frozen(kw_only=True)
class Producers:
    direct: DirectBootProducer
    template: TemplateProducer
    nursery: trio.Nursery


@contextlib.asynccontextmanager
async def producers(bench: Bench) -> AsyncIterator[Producers]:
    """Both producers, as in the service, but without it."""
    assert bench.resolver is not None, "an experiment of kind SYSTEM has one"
    machine = await bench.resolver.resolve()
    home = bench.home / "p"

    async def resolved() -> ResolvedMachine:
        return machine

    home.mkdir()
    templates = QemuTemplates(store=TemplateStore(home / "t" / "template"))
    direct = DirectBootProducer(resolve=resolved, launch=launch, vms_directory=home, boot_timeout_s=_TIMEOUT_S)
    template = TemplateProducer(
        resolve=resolved,
        backend=templates,
        launch=launch,
        vms_directory=home,
        new_vm_id=lambda: "template",
        boot_timeout_s=_TIMEOUT_S,
        fallback=False,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(direct.run)
        await nursery.start(template.run)
        yield Producers(direct=direct, template=template, nursery=nursery)
        nursery.cancel_scope.cancel(reason="nothing more is made")
    await templates.discard()
    (home / "t").rmdir()
    home.rmdir()


# -- a guest that only powers off -----------------------------------------------------------------------------------

_REBOOT: Final = 169
_MAGIC1, _MAGIC2, _POWER_OFF = 0xFEE1DEAD, 0x28121969, 0x4321FEDC


def power_off_initrd(path: Path) -> None:
    """An initramfs whose init is one system call: reboot(..., LINUX_REBOOT_CMD_POWER_OFF)."""
    entries = [cpio.file("init", power_off_program(), mode=0o755), cpio.character_device("dev/console", 5, 1)]
    path.write_bytes(cpio.archive(entries))


def power_off_program() -> bytes:
    """An ELF executable for x86-64, made by hand so that nothing has to be compiled."""
    code = b"".join(
        (
            b"\xb8" + struct.pack("<I", _REBOOT),  # mov eax, the system call
            b"\xbf" + struct.pack("<I", _MAGIC1),  # mov edi, first argument
            b"\xbe" + struct.pack("<I", _MAGIC2),  # mov esi
            b"\xba" + struct.pack("<I", _POWER_OFF),  # mov edx
            b"\x0f\x05",  # syscall
            b"\xeb\xfe",  # jump here, in case the call returns
        )
    )
    base, header_size, segment_size = 0x400000, 64, 56
    entry = base + header_size + segment_size
    size = header_size + segment_size + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, header_size, 0, 0, header_size, segment_size, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code


async def bare_boot(bench: Bench, *, initrd: Path) -> float:
    """Seconds from the spawn of a QEMU with a direct VM's options and that initramfs until it has powered off."""
    spec = attrs.evolve(bench.machine, initrd=initrd)
    began = time.perf_counter()
    instance = Instance.start(spec, vm_id="bench", directory=bench.home / "bare")
    try:
        with trio.fail_after(_TIMEOUT_S):
            await instance.process.wait_exited()
        return time.perf_counter() - began
    finally:
        await instance.kill()
