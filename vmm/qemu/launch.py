"""Booting a VM from a spec."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from vmm.errors import AgentError, MissingFileError, QmpError
from vmm.qemu.agents import connect_agent
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.instance import Instance
from vmm.qemu.settle import wait_until_idle
from vmm.qemu.version import QEMU_REMEDY
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.machines import AgentKind
from vmm.words.processes import BootStage

IMAGE_REMEDY = "build the guest image with `vmpool image build`, or set `{field}` to the path of a file that is there"


async def launch(
    spec: MachineSpec,
    *,
    vm_id: str,
    directory: Path,
    nursery: trio.Nursery,
    confinement: Confinement = UNCONFINED,
) -> QemuVm:
    """Boots a VM and returns it running, its guest agent having answered.

    Without an agent no answer can show that the guest is up: such a VM is returned once its vCPUs have come to rest, or
    after SETTLE_LIMIT_S, if QEMU reports that it runs.

    `directory` is made for this VM alone and removed with it. The connections' background tasks live in `nursery`. The
    caller sets the time limit with a cancel scope around the call, and must `stop` the VM.

    Raises MissingFileError or SpecError before anything is started, BootError as soon as it is clear that the VM will
    not come up: at once if QEMU dies. On any error and on cancellation everything is stopped and removed.
    """
    check_needs(spec, confinement=confinement)
    instance = Instance.start(spec, vm_id=vm_id, directory=directory, confinement=confinement)
    try:
        async with _stage(instance, BootStage.QMP):
            await instance.connect_qmp(nursery=nursery)
        async with _stage(instance, BootStage.GUEST):
            if spec.agent is AgentKind.NOOP:
                await wait_until_idle(instance.process.pid)
            agent = await connect_agent(instance, nursery=nursery)
    except BaseException as error:
        if isinstance(error, trio.Cancelled):
            instance.add_evidence(error)  # the caller may turn the cancellation into an error
        await instance.kill()
        raise
    return QemuVm(instance, agent)


def check_needs(spec: MachineSpec, *, confinement: Confinement = UNCONFINED) -> None:
    """Raises MissingFileError for the first file or device of the host that the spec needs and that is missing, or not
    usable by the service or QEMU's user. Blocks for some ms, and as `Confinement.open_input` does.
    """
    if shutil.which(spec.qemu) is None:
        raise MissingFileError(field="qemu", path=spec.qemu, remedy=QEMU_REMEDY)
    for field, path in (("kernel", spec.kernel), ("initrd", spec.initrd)):
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise MissingFileError(field=field, path=path, remedy=IMAGE_REMEDY.format(field=field))
    for device in spec.devices:
        device.check(confinement.open_input)


@asynccontextmanager
async def _stage(instance: Instance, stage: BootStage) -> AsyncIterator[None]:
    """Turns the channels' errors into a BootError. When QEMU dies, its channels break."""
    try:
        yield
    except (QmpError, AgentError) as error:
        raise await instance.boot_error(stage, error) from error
