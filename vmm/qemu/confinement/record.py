"""The confinement of one service's VMs, as used to start each QEMU."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from vmm.errors import MissingFileError
from vmm.logs import new_log
from vmm.qemu.accelerator import KVM_DEVICE, HostFacts, linux_host
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.inputs import InputFiles
from vmm.qemu.confinement.layers import Layers
from vmm.qemu.confinement.limits import MAX_FILE_BYTES, limits_for
from vmm.qemu.confinement.plan import CgroupPlan
from vmm.qemu.confinement.programs import files_for
from vmm.qemu.confinement.uids import UidPool
from vmm.qemu.confinement.user import QemuUser, check_program, device_groups
from vmm.qemu.jailer.client import Jailer
from vmm.qemu.jailer.protocol import Identity, Request
from vmm.qemu.process import QemuProcess, qemu_environment
from vmm.spec import MachineSpec
from vmm.words.confinement import Layer
from vmm.words.machines import Accelerator


@attrs.define
class _Plan:
    now: CgroupPlan


@attrs.frozen(kw_only=True)
class Confinement:
    """The user of QEMU, the cgroups of each VM, and the layers around it."""

    jailer: Jailer | None = None
    """Starts QEMU; its owner closes it. None: the service starts QEMU itself, without any other confinement."""
    user: QemuUser | None = None
    """None: QEMU runs as the service. With `uids`, one of those, to check the rights of all."""
    uids: UidPool | None = None
    """Gives each VM a uid of its own."""
    layers: Layers = attrs.field(factory=Layers)
    cgroups: CgroupPlan = attrs.field(factory=CgroupPlan)
    look_anew: Callable[[], CgroupPlan] | None = None
    """Makes the plan anew when a place of it is gone, for example unmounted. Raises ConfinementError, OSError."""
    _plan: _Plan = attrs.field(
        default=attrs.Factory(lambda self: _Plan(self.cgroups), takes_self=True), init=False, eq=False, repr=False
    )
    _inputs: InputFiles = attrs.field(factory=InputFiles, init=False, eq=False, repr=False)

    def check(self, spec: MachineSpec) -> None:
        """Raises MissingFileError for a file of the spec that QEMU's user cannot use, not even as a copy.

        Blocks for some 10 ms, and as `open_input` does.
        """
        if self.user is not None:
            check_program(spec.qemu, user=self.user)
        for field, path in (("kernel", spec.kernel), ("initrd", spec.initrd)):
            try:
                with self.open_input(path):
                    pass
            except OSError as error:
                remedy = f"let the service's user read it, and keep enough memory free for a copy ({error.strerror})"
                raise MissingFileError(field=field, path=path, remedy=remedy) from error

    def open_input(self, path: Path) -> AbstractContextManager[int]:
        """Opens a file for QEMU to read, within the block, as a descriptor to inherit; see `InputFiles.open`."""
        return self._inputs.open(path, user=self.user)

    def make_group(self, spec: MachineSpec, *, name: str, record: Path) -> VmGroup:
        """The group for one VM of that spec; see `VmGroup.create`.

        If its place is gone, the plan is made anew. Raises ConfinementError if all controllers are required and one is
        no longer available; OSError. Nothing is left then.
        """
        try:
            return self._make_group(spec, name=name, record=record)
        except FileNotFoundError:
            if self.look_anew is None or all(place.is_dir() for place in self._plan.now.places.values()):
                raise
        self._plan.now = self.look_anew()
        record.unlink(missing_ok=True)  # it names the place that is gone
        return self._make_group(spec, name=name, record=record)

    def _make_group(self, spec: MachineSpec, *, name: str, record: Path) -> VmGroup:
        plan = self._plan.now
        if not plan.places:
            return VmGroup()
        image_bytes = sum(path.stat().st_size for path in (spec.kernel, spec.initrd) if path.exists())
        limits = limits_for(spec, image_bytes=image_bytes, host_memory_bytes=host_memory_bytes())
        return VmGroup.create(plan, name=name, limits=limits, record=record)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        spec: MachineSpec,
        group: VmGroup,
        log: Path,
        readable: Collection[int],
        writable: Collection[int] = (),
        inherited: Collection[int] = (),
    ) -> QemuProcess:
        """Starts QEMU in the group, with these descriptors under their numbers; otherwise as `QemuProcess.spawn`.

        QEMU may reopen the `readable` and `writable` ones, and owns the latter from now on. Raises OSError, JailError,
        ConfinementError if no uid is free; nothing is left then.
        """
        descriptors = [*readable, *writable, *inherited]
        if self.jailer is None:
            return QemuProcess.spawn(argv, log=log, pass_fds=descriptors)
        environment = qemu_environment()
        with self._identity(spec) as identity, new_log(log) as log_fd, Path(os.devnull).open("rb") as nothing:
            if identity is not None:
                for descriptor in writable:
                    # Not before it is open: under systemd the service is root without CAP_DAC_OVERRIDE.
                    os.fchown(descriptor, identity["uid"], identity["gid"])
            request = Request(
                program=shutil.which(argv[0]) or argv[0],
                argv=list(argv),
                environment=environment,
                descriptors=[0, 1, 2, *descriptors],
                readable=list(readable),
                writable=list(writable),
                entrances=group.entrances(version=self._plan.now.version),
                identity=identity,
                namespaces=self.layers.namespaces,
                files=files_for(spec.qemu, accelerator=spec.accelerator, environment=environment),
                landlock=Layer.LANDLOCK in self.layers.applied,
                filter=Layer.SECCOMP in self.layers.applied,
                max_file_bytes=MAX_FILE_BYTES,
            )
            started = self.jailer.start(request, [nothing.fileno(), log_fd, log_fd, *descriptors])
        return QemuProcess.started(started.pid, pidfd=started.pidfd, log=log)

    @contextlib.contextmanager
    def _identity(self, spec: MachineSpec) -> Iterator[Identity | None]:
        """QEMU's uid and groups, reserved within the block. Raises ConfinementError."""
        if self.user is None:
            yield None
            return
        with contextlib.nullcontext(self.user.uid) if self.uids is None else self.uids.take() as uid:
            user = self.user if self.uids is None else QemuUser(name=str(uid), uid=uid, gid=uid)
            kvm = spec.accelerator is Accelerator.KVM
            groups = device_groups(KVM_DEVICE.stat(), user=user) if kvm else ()
            yield Identity(uid=user.uid, gid=user.gid, groups=list(groups or ()))

    def host_facts(self) -> HostFacts:
        """The host as QEMU sees it: its user, too, must be able to open /dev/kvm."""
        facts = linux_host()
        return facts if self.user is None else attrs.evolve(facts, open_kvm=partial(_open_kvm, facts, self.user))


def _open_kvm(facts: HostFacts, user: QemuUser) -> None:
    facts.open_kvm()
    status = KVM_DEVICE.stat()
    if device_groups(status, user=user) is None:
        mode = f"mode {stat.S_IMODE(status.st_mode):o}, uid {status.st_uid}, gid {status.st_gid}"
        raise PermissionError(errno.EACCES, f"QEMU runs as {user.name}: {mode}", str(KVM_DEVICE))


UNCONFINED: Final = Confinement()


def host_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
