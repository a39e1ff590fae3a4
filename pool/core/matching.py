"""Requests that describe a machine: served from a pool of such machines, or else booted for the request.

What Kata's factory does with a sandbox's configuration, and better: the fields that differ are named, and what is
booted in a pool's place is handed out running.
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
"""Characters of what a caller wrote."""


class ForbiddenMachineError(Exception):
    """A caller described what is only for root and the service's user."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"config.{field}: {reason}")
        self.field = field


@attrs.frozen(kw_only=True)
class WantedMachine:
    """What a request describes. None: as the profile that it starts from has it."""

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
    """A pool, or a configuration of its own and why."""

    profile: str = ""
    own: OwnConfiguration | None = None
    settings_of: str
    """The profile that says what the machine does not: how long a lease lives."""
    wishes: Wishes
    """Without what the machine has already."""
    mismatches: tuple[Mismatch, ...] = ()

    def fulfilled(self) -> Match:
        """As it is told, and kept for as long as a call lasts: without the wishes, as `LeaseTerms.fulfilled`."""
        return attrs.evolve(self, wishes=Wishes())


@attrs.define(eq=False, kw_only=True)
class Matcher:
    """Finds the pool for a machine, or makes a configuration of it. One for the service."""

    profiles: Mapping[str, ProfileSettings]
    specs: Mapping[str, MachineSpec]
    """What each profile makes."""
    base: str
    """The profile that fills in what a request leaves open."""
    make_resolver: Callable[[ProfileSettings], MachineResolver]
    launch: Launch
    vms_directory: Path
    fallbacks: int = 0
    """Requests that no pool could serve."""
    _hashes: dict[FileIdentity, bytes] = attrs.field(factory=dict, init=False)

    async def match(self, wanted: WantedMachine, wishes: Wishes, *, administers: bool) -> Match:
        """Reads files it has not seen yet in a thread. Who does not administer names no other files than profiles have,
        and of a CPU model no more than its features.

        What is booted has no more CPUs and memory than the profile allows that fills in what was left open. Raises
        RefusedError for that, ForbiddenMachineError, and what `MachineResolver.resolve` raises for a machine that
        cannot be.
        """
        settings = self._settings(wanted, wishes)
        if not administers:
            self._check_paths(wanted)
            self._check_cpu_model(wanted.cpu_model or "")
        mismatches = []
        # The one that fills in what was left open is nearest to what is meant.
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
        """As if the request were a profile like the base, but direct and of no size."""
        base = self.profiles[self.base]
        spec = self.specs[self.base]
        # A machine that is made for the request has what it wishes from the start, and as in a pool no less than the
        # base has.
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
                    reason=f"{path} is no profile's; only root and the service's user may name other files",
                )

    def _check_cpu_model(self, model: str) -> None:
        beyond = beyond_features(model)
        if beyond and model not in {spec.cpu_model for spec in self.specs.values()}:
            raise ForbiddenMachineError(
                field="cpu_model",
                reason=f"{', '.join(beyond)[:_SHOWN]}: only root, the service's user and profiles may set more than "
                "features that are known; write them as name=on, name=off, +name or -name",
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
        """The fields in which no hand-out could make one of the other."""
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
        if wanted.agent is spec.agent:  # else their devices differ for that
            fields += dict.fromkeys(device.setting for device in wanted.differing_devices(spec))
        grows = spec.agent is not AgentKind.NOOP  # else nobody brings online what is added
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
        """A hash; None for what is no file that can be read, which is told when it is to be booted."""
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
