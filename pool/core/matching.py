"""Requests that describe a machine: served from a pool of such machines, or else booted for the request.

As Kata's factory does with a sandbox's configuration, but the fields that differ are named, and a VM that is booted for
the request is handed out running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from actors.direct import MachineBoot
from actors.producer import Launch
from pool.core.machines import MachineResolver
from pool.core.reception import OWN, OwnConfiguration
from pool.core.requests import RefusedError
from pool.ledger import refusals
from pool.ledger.policy import OnEmpty
from pool.producers.direct import DirectSettings
from pool.settings.config import ProfileSettings
from vmm.files import FileIdentity, identify
from vmm.spec import MachineSpec
from vmm.words.cpu_model import beyond_features
from vmm.words.machines import AgentKind, grown_memory_mib
from vmm.words.wishes import Wishes

_log = structlog.get_logger("vmpool.matching")

REMEMBERED_FILES: Final = 64

_SHOWN: Final = 256
"""Characters of a caller's text that a message quotes."""


class ForbiddenMachineError(Exception):
    """A caller described a machine that is only for root and the service's user."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"config.{field}: {reason}")
        self.field = field


@attrs.frozen(kw_only=True)
class WantedMachine:
    """The machine that a request describes. None: as the base profile has it."""

    kernel: Path | None = None
    initrd: Path | None = None
    kernel_parameters: str | None = None
    cpu_model: str | None = None


@attrs.frozen(kw_only=True)
class Mismatch:
    """Why a pool cannot serve a request."""

    profile: str
    fields: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Match:
    """A pool that serves a request, or a configuration of its own with the reason."""

    profile: str = ""
    own: OwnConfiguration | None = None
    settings_of: str
    """The profile for settings that are not the machine's, such as the lease's time to live."""
    wishes: Wishes
    """Without the CPUs and memory that the machine has already."""
    mismatches: tuple[Mismatch, ...] = ()

    def fulfilled(self) -> Match:
        """As it is told, and kept for as long as a call lasts: without the wishes, as `LeaseTerms.fulfilled`."""
        return attrs.evolve(self, wishes=Wishes())


@attrs.define(eq=False, kw_only=True)
class Matcher:
    """Finds the pool for a machine, or makes a configuration for it. The service has one matcher."""

    profiles: Mapping[str, ProfileSettings]
    specs: Mapping[str, MachineSpec]
    """The machine of each profile."""
    base: str
    """The profile that supplies the settings that a request does not specify."""
    make_resolver: Callable[[ProfileSettings], MachineResolver]
    launch: Launch
    vms_directory: Path
    fallbacks: int = 0
    """Number of requests that no pool could serve."""
    _hashes: dict[FileIdentity, bytes] = attrs.field(factory=dict, init=False)

    async def match(self, wanted: WantedMachine, wishes: Wishes, *, administers: bool) -> Match:
        """Reads new files in a thread. Callers who do not administer may name only files of profiles, and change only
        features of a CPU model.

        A machine that is booted has at most the CPUs and memory that the base profile allows. Raises RefusedError if
        more are requested, ForbiddenMachineError, and the errors of `MachineResolver.resolve`.
        """
        settings = self._settings(wanted, wishes)
        if not administers:
            self._check_paths(wanted)
            self._check_cpu_model(wanted.cpu_model or "")
        mismatches = []
        # The base profile comes first: it is the most likely match.
        for name in sorted(self.specs, key=lambda name: name != self.base):
            fields = await self._differing(settings, wishes, self.specs[name])
            if not fields:
                return Match(profile=name, settings_of=name, wishes=wishes)
            mismatches.append(Mismatch(profile=name, fields=fields))
        self._check_size(wishes)
        own = await self._own(settings)
        self.fallbacks += 1
        _log.info(
            "no pool has this machine; it is booted",
            configuration=own.name,
            differing={mismatch.profile: mismatch.fields for mismatch in mismatches},
        )
        wishes = attrs.evolve(wishes, vcpus=None, memory_mib=None)
        return Match(own=own, settings_of=self.base, wishes=wishes, mismatches=tuple(mismatches))

    def _settings(self, wanted: WantedMachine, wishes: Wishes) -> ProfileSettings:
        """The request as a profile like the base, but direct and of size 0."""
        base = self.profiles[self.base]
        spec = self.specs[self.base]
        # A machine that is booted for the request has the requested CPUs and memory from the start, and at least those
        # of the base profile.
        return attrs.evolve(
            base,
            kernel=wanted.kernel or spec.kernel,
            initrd=wanted.initrd or spec.initrd,
            kernel_parameters=wanted.kernel_parameters or base.kernel_parameters,
            cpu_model=wanted.cpu_model or base.cpu_model,
            vcpus=max(wishes.vcpus or 0, base.vcpus),
            memory_mib=max(wishes.memory_mib or 0, base.memory_mib),
            max_vcpus=None,
            max_memory_mib=None,
            producer=DirectSettings(),
            size=0,
            adaptive=None,
            shells=0,
            on_empty=OnEmpty.BOOT,
        )

    def _check_paths(self, wanted: WantedMachine) -> None:
        for field, path in (("kernel", wanted.kernel), ("initrd", wanted.initrd)):
            if path is not None and path not in {getattr(spec, field) for spec in self.specs.values()}:
                raise ForbiddenMachineError(
                    field=field,
                    reason=f"no profile uses {path}; only root and the service's user may name other files",
                )

    def _check_cpu_model(self, model: str) -> None:
        beyond = beyond_features(model)
        if beyond and model not in {spec.cpu_model for spec in self.specs.values()}:
            raise ForbiddenMachineError(
                field="cpu_model",
                reason=f"{', '.join(beyond)[:_SHOWN]}: only root, the service's user and profiles may set properties "
                "other than known features; write features as name=on, name=off, +name or -name",
            )

    def _check_size(self, wishes: Wishes) -> None:
        spec = self.specs[self.base]
        for field, wished, maximum in (
            ("vcpus", wishes.vcpus, spec.max_vcpus),
            ("memory_mib", wishes.memory_mib, spec.max_memory_mib),
        ):
            if wished is not None and wished > maximum:
                raise RefusedError(refusals.over_maximum(field, wished=wished, maximum=maximum, profile=self.base))

    async def _differing(self, settings: ProfileSettings, wishes: Wishes, spec: MachineSpec) -> tuple[str, ...]:
        """The fields that differ in a way that a hand-out cannot change."""
        assert settings.kernel is not None
        assert settings.initrd is not None
        fields = []
        for field, path, other in (("kernel", settings.kernel, spec.kernel), ("initrd", settings.initrd, spec.initrd)):
            if path != other and not await self._same_content(path, other):
                fields.append(field)
        wanted = settings.machine(qemu=spec.qemu, kernel=spec.kernel, initrd=spec.initrd, accelerator=spec.accelerator)
        fields += [
            field
            for field in ("kernel_parameters", "cpu_model", "agent")
            if getattr(wanted, field) != getattr(spec, field)
        ]
        if wanted.agent is spec.agent:  # otherwise the devices differ because of the agent
            fields += dict.fromkeys(device.setting for device in wanted.differing_devices(spec))
        grows = spec.agent is not AgentKind.NOOP  # otherwise added CPUs and memory stay offline
        if (wishes.vcpus or 0) > (spec.max_vcpus if grows else spec.vcpus):
            fields.append("vcpus")
        grown_mib = grown_memory_mib(spec.memory_mib, wished_mib=wishes.memory_mib or 0)
        if grown_mib > (spec.max_memory_mib if grows else spec.memory_mib):
            fields.append("memory_mib")
        return tuple(fields)

    async def _same_content(self, path: Path, other: Path) -> bool:
        content = await self._content(path)
        return content is not None and content == await self._content(other)

    async def _content(self, path: Path) -> bytes | None:
        """A hash; None for a file that cannot be read, which is reported when the machine is resolved."""
        try:
            if not path.is_file():  # reading a pipe or a device may never end  # noqa: ASYNC240 - one stat call
                return None
            identity = identify(path)
            if identity not in self._hashes:
                self._hashes[identity] = await trio.to_thread.run_sync(_hash, path)
                while len(self._hashes) > REMEMBERED_FILES:
                    del self._hashes[next(iter(self._hashes))]
        except OSError:
            return None
        return self._hashes[identity]

    async def _own(self, settings: ProfileSettings) -> OwnConfiguration:
        machine = await self.make_resolver(settings).resolve()
        return OwnConfiguration(
            name=f"{OWN}{machine.fingerprint[:12]}",
            policy=attrs.evolve(settings.policy(machine.spec), within=self.base),
            producer=MachineBoot(
                machine=machine,
                launch=self.launch,
                vms_directory=self.vms_directory,
                timeout_s=settings.boot_timeout_s,
            ),
            procedure=settings.procedure(),
            vigil=settings.vigil(),
        )


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
