"""The backend of QEMU. Implements `vmm.backend.Backend`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from vmm.backend import Decided, Remains
from vmm.errors import MissingFileError
from vmm.qemu import adopt as adopting
from vmm.qemu import launch as launching
from vmm.qemu import orphans, owners
from vmm.qemu.accelerator import TrialIdentity, decide
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.making import confined, report, user_for
from vmm.qemu.confinement.user import UserDecision
from vmm.qemu.directory import VmDirectory
from vmm.qemu.template.backend import QemuTemplates
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.template.store import TemplateStore
from vmm.qemu.trial import boot_under_kvm
from vmm.qemu.version import QEMU_REMEDY, detect_version
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.confinement import ConfinementLine, ConfinementReport, ConfinementWish
from vmm.words.kinds import BackendKind
from vmm.words.machines import AcceleratorSetting
from vmm.words.processes import ProcessIdentity


@attrs.frozen(kw_only=True)
class QemuBackend:
    """By default it starts QEMU as the service's user; see `wishing` and `confined`."""

    wish: ConfinementWish = attrs.field(factory=ConfinementWish)
    user: UserDecision = UserDecision(user=None, reason="no other user is requested")  # noqa: RUF009 - a frozen record
    confinement: Confinement = UNCONFINED

    @classmethod
    def wishing(cls, wish: ConfinementWish) -> QemuBackend:
        """A backend with QEMU's user of the wish; `confined` applies the rest.

        Raises ConfinementError, MissingFileError.
        """
        user = user_for(wish)
        return cls(wish=wish, user=user, confinement=Confinement(user=user.user))

    @property
    def kind(self) -> BackendKind:
        return BackendKind.QEMU

    # -- machines ----------------------------------------------------------------------------------------------------

    def find_program(self, name: str) -> Path:
        found = shutil.which(name)
        if found is None:
            raise MissingFileError(field="qemu", path=name, remedy=QEMU_REMEDY)
        return Path(found)

    def check(self, spec: MachineSpec) -> None:
        launching.check_needs(spec, confinement=self.confinement)
        self.confinement.check(spec)

    async def version(self, spec: MachineSpec) -> str:
        return str(await detect_version(spec.qemu))

    async def decide(
        self,
        spec: MachineSpec,
        *,
        accelerator: AcceleratorSetting,
        trial_directory: Path,
        cache_directory: Path,
    ) -> Decided:
        version = await detect_version(spec.qemu)
        user = self.confinement.user
        decision = await decide(
            accelerator,
            identity=TrialIdentity(
                qemu=spec.qemu,
                qemu_version=version,
                kernel=spec.kernel,
                uid=os.geteuid() if user is None else user.uid,
            ),
            trial_boot=partial(boot_under_kvm, spec, directory=trial_directory, confinement=self.confinement),
            cache_directory=cache_directory,
            host=self.confinement.host_facts(),
        )
        spec = attrs.evolve(spec, accelerator=decision.accelerator)
        return Decided(
            spec=spec,
            reason=f"QEMU {version}; {decision.reason}",
            fingerprint=await fingerprint(spec, qemu_version=version),
        )

    # -- VMs ---------------------------------------------------------------------------------------------------------

    async def launch(self, spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> QemuVm:
        """See `vmm.qemu.launch.launch`."""
        return await launching.launch(
            spec, vm_id=vm_id, directory=directory, nursery=nursery, confinement=self.confinement
        )

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> adopting.QemuSurvivor:
        """See `vmm.qemu.adopt.adopt`."""
        return await adopting.adopt(identity, vm_id=vm_id, directory=directory)

    def templates(self, directory: Path) -> QemuTemplates:
        return QemuTemplates(store=TemplateStore(directory), confinement=self.confinement)

    # -- what an earlier run left --------------------------------------------------------------------------------------

    def remains_in(self, vms_directory: Path) -> Sequence[Remains]:
        return orphans.find_orphans(vms_directory)

    def owner_of(self, pids: Collection[int]) -> int | None:
        return owners.owner_of(pids)

    async def end(self, remains: Remains) -> None:
        await orphans.end_orphan(remains)

    def limit_again(self, directory: Path) -> None:
        VmGroup.recorded_in(VmDirectory(directory).cgroups).restrict()

    # -- confinement ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def confined(
        self, specs: Mapping[str, MachineSpec], *, changed: Callable[[ConfinementLine], None]
    ) -> Iterator[QemuBackend]:
        with confined(self.wish, user=self.user, specs=specs, changed=changed) as confinement:
            yield attrs.evolve(self, confinement=confinement)

    def confinement_report(self) -> ConfinementReport:
        return report(self.wish, user=self.user, confinement=self.confinement)
