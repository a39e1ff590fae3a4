"""Sources of a factory's base VMs: booting, cloning, keeping VMs ready, or another server's cache."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import attrs
import trio

from actors.direct import MachineBoot
from actors.machine import ResolveMachine
from actors.producer import BaseVmMaker
from pool.core.coordinator import Coordinator, new_id
from pool.kata.cache.client import WaitingVm, open_cache_client
from pool.kata.cache.wire import CachedVm
from pool.kata.config.settings import PROFILE
from pool.kata.errors import UnsupportedError
from pool.kata.factory.host import FactoryHost
from pool.kata.factory.proxied import KataProxy, ProxiedVm
from pool.ledger.records import Owner
from vmm.backend import TemplateBackend
from vmm.contract import Vm
from vmm.errors import AttachError
from vmm.qemu.command_line import machine_uuid
from vmm.qemu.directory import VmDirectory
from vmm.words.leases import LeaseRequest
from vmm.words.life import VmState

CONNECT_LIMIT_S = 10.0
"""For QEMU's greeting, and for a server's answer to everything except a request for a VM."""


class Source(Protocol):
    async def take(self) -> Vm:
        """A paused VM, the caller's. Cancelled, it takes none. Raises VmmError, KataError, RefusedError."""

    def statuses(self) -> Sequence[WaitingVm]:
        """The ready VMs. Raises UnsupportedError if none are kept."""

    async def close(self) -> None:
        """Kata's CloseFactory: ends kept VMs for good."""


class _KeepsNone:
    """Kata panics with these words."""

    package: str

    def statuses(self) -> Sequence[WaitingVm]:
        raise UnsupportedError(f"ERROR: package {self.package} does not support GetVMStatus")

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False, kw_only=True)
class DirectSource(_KeepsNone):
    """Boots a new VM each time."""

    package = "direct"
    host: FactoryHost
    resolve: ResolveMachine
    boot_timeout_s: float
    nursery: trio.Nursery

    async def take(self) -> Vm:
        boot = MachineBoot(
            machine=await self.resolve(),
            launch=self.host.launch,
            vms_directory=self.host.vms_directory,
            timeout_s=self.boot_timeout_s,
        )
        return (await boot.produce(vm_id=new_id("vm"), nursery=self.nursery)).vm


@attrs.define(eq=False, kw_only=True)
class TemplateSource(_KeepsNone):
    """Clones a new VM each time. `close` removes the template."""

    package = "template"
    producer: BaseVmMaker
    backend: TemplateBackend
    nursery: trio.Nursery

    async def take(self) -> Vm:
        return (await self.producer.produce(vm_id=new_id("vm"), nursery=self.nursery)).vm

    async def close(self) -> None:
        with self.backend.own():
            await self.backend.discard()


@attrs.define(eq=False, kw_only=True)
class CacheSource:
    """Keeps VMs ready, in a pool of its own."""

    coordinator: Coordinator
    host: FactoryHost
    under: Source
    """The source that makes the VMs."""
    vcpus: int
    memory_mib: int
    nursery: trio.Nursery

    async def take(self) -> Vm:
        lease = await self.coordinator.acquire(
            profile=PROFILE, owner=Owner(uid=os.geteuid()), request=LeaseRequest(bare=True)
        )
        directory = self.host.vms_directory / lease.vm_id
        try:
            vm = await _attach(
                self.host,
                vm_id=lease.vm_id,
                directory=directory,
                uuid=machine_uuid(lease.vm_id),
                nursery=self.nursery,
            )
        except BaseException:
            self.coordinator.give_back(lease)
            raise
        self.coordinator.relinquish(lease)
        # This process owns the VM: if it is killed, the VM has no owner.
        self.host.journal.withdraw(lease.vm_id)
        return vm

    def statuses(self) -> Sequence[WaitingVm]:
        return [
            WaitingVm(pid=vm.pid, vcpus=self.vcpus, memory_mib=self.memory_mib)
            for vm in self.coordinator.snapshot().vms
            if vm.state is VmState.READY
        ]

    async def close(self) -> None:
        await self.coordinator.shut_down()
        await self.under.close()


@attrs.define(eq=False, kw_only=True)
class ClientSource(_KeepsNone):
    """Another server's cache. Each VM takes its own connection, as the protocol requires."""

    package = "grpccache"
    host: FactoryHost
    endpoint: Path
    nursery: trio.Nursery

    async def take(self) -> Vm:
        vm: Vm | None = None
        try:
            async with open_cache_client(self.endpoint, timeout_s=CONNECT_LIMIT_S) as client:
                cached = await client.take_base_vm(timeout_s=math.inf)
                vm = await attach_cached(cached, host=self.host, nursery=self.nursery)
        except BaseException:
            if vm is not None:  # cancelled while the connection was closed
                await vm.stop()
            raise
        return vm


async def attach_cached(cached: CachedVm, *, host: FactoryHost, nursery: trio.Nursery) -> Vm:
    """Makes a VM of one received from any VMCache server: paused, and the caller's to resume and stop.

    Its agent is used if vmpool started the VM. A kata-proxy that comes with it is ended with it, or with the attempt.
    Raises UnsupportedError if its QMP socket does not have a VM's file name, AttachError if nothing is there: the VM
    was not touched then. Raises QmpError after ending the VM.
    """
    socket = Path(cached.qemu.qmp_channel_path)
    home = VmDirectory(socket.parent)
    if socket != home.qmp_socket:
        raise UnsupportedError(f"VM {cached.id!r}: its QMP socket {str(socket)!r} is not named {home.qmp_socket.name}")
    proxy = KataProxy.of(cached)
    try:
        vm = await _attach(
            host,
            vm_id=cached.id,
            directory=home.root,
            uuid=cached.qemu.state.uuid,
            nursery=nursery,
        )
    except BaseException:
        if proxy is not None:
            await proxy.end()
        raise
    return vm if proxy is None else ProxiedVm(vm, proxy)


async def _attach(host: FactoryHost, *, vm_id: str, directory: Path, uuid: str, nursery: trio.Nursery) -> Vm:
    try:
        with trio.fail_after(CONNECT_LIMIT_S):
            return await host.attach(vm_id=vm_id, directory=directory, uuid=uuid, nursery=nursery)
    except trio.TooSlowError as error:
        raise AttachError(
            vm_id=vm_id, reason=f"QMP did not answer within {CONNECT_LIMIT_S:g} s, and the VM was ended"
        ) from error
