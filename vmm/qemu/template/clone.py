"""Building a template and cloning VMs from it, on real QEMU."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from vmm.contract import Agent
from vmm.errors import AgentError, QmpError, SnapshotError, TemplateError, VmExitedError
from vmm.fresh import FRESH
from vmm.qemu.agents import connect_agent
from vmm.qemu.command_line import FileMemory, Start, machine_uuid
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.instance import Instance
from vmm.qemu.launch import check_needs
from vmm.qemu.settle import wait_until_idle
from vmm.qemu.snapshot import load, save
from vmm.qemu.template.store import Template, TemplateStore
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.machines import AgentKind
from vmm.words.processes import BootStage

_REHEARSALS: Final = {AgentKind.BUILTIN: 20, AgentKind.QGA: 3, AgentKind.NOOP: 1}
"""Hand-outs rehearsed in the template, each over a connection of its own, as it will be in a clone.

Their pages are shared by all clones; after the third no new pages are touched (measured: guest-side allocations stop).
The built-in agent's interpreter goes on to specialize hot code, which each clone would do again, and translate under
TCG: a clone needs 7 % fewer blocks of code after 8 rehearsals, 9 % fewer after 20. One takes 10 ms.
"""


async def build_template(
    spec: MachineSpec,
    *,
    store: TemplateStore,
    fingerprint: str,
    vm_id: str,
    directory: Path,
    confinement: Confinement = UNCONFINED,
) -> Template:
    """Boots a VM with its memory in the store's file, saves it, stops it, publishes the template.

    The caller sets the time limit with a cancel scope. Raises MissingFileError, TemplateError (no space), BootError,
    SnapshotError, OSError. On error and cancellation no process is left, and no template.
    """
    check_needs(spec, confinement=confinement)
    memory, state = await trio.to_thread.run_sync(lambda: store.begin(memory_mib=spec.memory_mib))
    spec = attrs.evolve(spec, devices=tuple(device.for_template(store.directory) for device in spec.devices))
    published: Template | None = None
    try:
        start = partial(Instance.start, spec, vm_id=vm_id, directory=directory, confinement=confinement)
        async with _running_template(start, memory=memory) as instance:
            await save(instance, state=state)
        published = await trio.to_thread.run_sync(lambda: store.publish(fingerprint=fingerprint))
    finally:
        if published is None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(store.clear)
    return published


@asynccontextmanager
async def _running_template(start: Callable[..., Instance], *, memory: Path) -> AsyncIterator[Instance]:
    """A template VM, booted, settled and paused; stopped at the end. Its memory file becomes QEMU's."""
    descriptor = os.open(memory, os.O_RDWR | os.O_CLOEXEC)
    try:
        instance = start(memory=FileMemory(fd=descriptor, shared=True))
    finally:
        os.close(descriptor)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                async with _evidence(instance):
                    await instance.connect_qmp(nursery=nursery)
                    for _ in range(_REHEARSALS[instance.agent_link.agent]):
                        agent = await connect_agent(instance, nursery=nursery)
                        await _rehearse(agent, vm_id=instance.vm_id)
                        await agent.aclose()
                    # The host has hung up; each clone would repeat the work that the guest does until it comes to rest.
                    await wait_until_idle(instance.process.pid)
                    await instance.execute("stop")
                    yield instance
            except Exception as error:  # noqa: BLE001 - raised again below, where the nursery does not wrap it
                failure = error
            nursery.cancel_scope.cancel(reason="the template is saved, or will not be")
    finally:
        await instance.kill()
    if failure is not None:
        raise failure


async def start_shell(
    spec: MachineSpec,
    *,
    template: Template,
    vm_id: str,
    directory: Path,
    nursery: trio.Nursery,
    confinement: Confinement = UNCONFINED,
) -> Instance:
    """Starts a QEMU that maps the template's memory privately and has loaded its state, ready to run.

    The caller must end it. Raises TemplateError, BootError, SnapshotError. On error and cancellation nothing is left.
    """
    template.check()
    spec = attrs.evolve(spec, devices=tuple(device.for_clone(template.directory) for device in spec.devices))
    instance = Instance.start(
        spec,
        vm_id=vm_id,
        directory=directory,
        memory=FileMemory(fd=template.sealed.fileno(), shared=False),
        start=Start.INCOMING,
        confinement=confinement,
    )
    try:
        async with _evidence(instance):
            await instance.connect_qmp(nursery=nursery)
            await load(instance, state=template.state)
    except BaseException:
        await instance.kill()
        raise
    return instance


async def load_clone(instance: Instance, *, template: Template, nursery: trio.Nursery) -> QemuVm:
    """Makes a VM of a shell: runs it, and waits for its agent.

    Returns the VM running, with the state of the template's RNG: a clone may be used only after it was prepared with
    entropy of its own. Takes over the shell: on error and cancellation it is ended. Raises TemplateError, BootError.
    """
    try:
        async with _evidence(instance):
            template.check()
            await instance.execute("cont")
            agent = await connect_agent(instance, nursery=nursery)
    except BaseException:
        await instance.kill()
        raise
    return QemuVm(instance, agent)


async def _rehearse(agent: Agent, *, vm_id: str) -> None:
    """Makes the request of every hand-out; each clone's hand-out repeats it."""
    report = await agent.prepare(FRESH.preparation(vm_id=vm_id, vm_uuid=machine_uuid(vm_id)))
    if not report.reseeded:
        # Its clones would draw the same random numbers, keys among them.
        raise TemplateError(
            reason="its guest cannot be reseeded, so its clones would share their secrets; install perl or python3 "
            'in a guest with agent = "qga", or set producer = "direct"'
        )


@asynccontextmanager
async def _evidence(instance: Instance) -> AsyncIterator[None]:
    """Turns the channels' errors into a BootError, and adds the evidence to all errors."""
    try:
        yield
    except (QmpError, AgentError, VmExitedError) as error:
        raise await instance.boot_error(BootStage.GUEST, error) from error
    except (SnapshotError, trio.Cancelled) as error:
        instance.add_evidence(error)
        raise
