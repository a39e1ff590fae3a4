"""Kata's VM factory: `open_factory`, and what it opens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from actors.direct import DirectBootProducer
from actors.errors import describe
from actors.handout import GROWTH_TIMEOUT_S, HAND_OUT_TIMEOUT_S
from actors.machine import ResolvedMachine
from actors.producer import Producer
from actors.supervisor import NEVER_GIVE_UP, Supervised
from actors.template import TemplateProducer
from pool.core.coordinator import Coordinator, new_id
from pool.kata.cache.client import WaitingVm, open_cache_client
from pool.kata.config.settings import PROFILE, UNLIKE_CLONES, profile_of
from pool.kata.errors import ConfigMismatchError, InvalidConfigError, UnsupportedError
from pool.kata.factory.host import FactoryHost
from pool.kata.factory.sources import CONNECT_LIMIT_S, CacheSource, ClientSource, DirectSource, Source, TemplateSource
from pool.kata.records.config import FactoryConfig, FactoryKind, VMConfig
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import HypervisorConfig
from pool.kata.records.matching import check_config
from pool.ledger.policy import PoolPolicy
from pool.observe.spans import NO_SPANS, Spans
from pool.producers.registry import PRODUCERS
from pool.producers.template import TemplateSettings
from vmm.backend import TemplateBackend
from vmm.contract import Vm
from vmm.errors import AgentUnreachableError, SnapshotError, TemplateError
from vmm.fresh import FRESH
from vmm.guest.noop import NOT_DONE
from vmm.words.machines import AgentKind
from vmm.words.preparation import Preparation, PreparationReport

_log = structlog.get_logger("vmpool.factory", subsystem="factory")


SPAN_TAGS: Final = {"source": "runtime", "package": "factory", "subsystem": "factory"}
"""Kata's tags of its spans NewFactory and GetVM."""


@attrs.define(eq=False, kw_only=True)
class Factory:
    """Provides VMs by Kata's rules. Use `open_factory`."""

    _source: Source
    _maker: _Maker
    _vm_config: VMConfig
    _generation: Generation
    _spans: Spans
    _silence_told: bool = attrs.field(default=False, init=False)
    """Whether the warning about guests without an agent has been logged."""

    def config(self) -> VMConfig:
        """The configuration of its base VMs, or of the server's for a client. Valid, with its defaults."""
        return self._vm_config

    async def get_vm(self, config: VMConfig) -> Vm:
        """A running VM for a request: reseeded, its clock set, with the requested CPUs and memory.

        A request that the base VMs cannot serve is booted separately. In a guest without a usable agent, such as one
        from Kata's servers, nothing is done: the VM runs, with added devices plugged in but not online. A clone that
        cannot be reseeded is ended instead.

        The caller stops the VM. On error or cancellation the VM is ended. Raises InvalidConfigError, CacheError,
        UnsupportedError, RefusedError and VmmError.
        """
        with self._spans.span("GetVM", **SPAN_TAGS):
            return await self._get_vm(config)

    async def _get_vm(self, config: VMConfig) -> Vm:
        wanted = config.hypervisor_config  # as requested: defaults must not cause anything to be added
        if self._generation is Generation.RUNTIME_1X:
            config.check_request()
        try:
            config = config.valid(self._generation)
        except InvalidConfigError as error:
            _log.error("invalid hypervisor config", error=str(error))
            raise
        try:
            check_config(self._vm_config, config, generation=self._generation)
        except ConfigMismatchError as error:
            fields = [difference.path for difference in error.differences]
            _log.info("fallback to direct factory vm", differences=fields)
            vm, base = await self._maker.direct(config).take(), wanted
        else:
            vm, base = await self._take(), self._vm_config.hypervisor_config
        try:
            report = await _make_ready(vm, base=base, wanted=wanted)
        except BaseException:
            _log.info("clean up vm", vm=vm.id)
            await vm.stop()
            raise
        self._note(report, vm=vm)
        return vm

    def _note(self, report: PreparationReport, *, vm: Vm) -> None:
        """Warns about properties that the VM's taker cannot rely on."""
        if report.was_seen and not report.reseeded:
            _log.warning("the guest cannot be reseeded: its random numbers may not be unique", vm=vm.id)
        elif not report.was_seen and not self._silence_told:
            self._silence_told = True
            _log.warning("no agent in the guest can be used; this is logged once", vm=vm.id, detail=NOT_DONE)

    async def get_base_vm(self) -> Vm:
        """A paused VM, as it was made. The caller stops it. Raises like `get_vm`."""
        return await self._take()

    async def _take(self) -> Vm:
        _log.info("get base VM")
        try:
            with self._spans.span("GetBaseVM", **SPAN_TAGS):
                vm = await self._source.take()
        except Exception as error:
            _log.error("failed to get base VM", error=describe(error))
            raise
        _log.info("got base VM", vm=vm.id)
        return vm

    def vm_status(self) -> Sequence[WaitingVm]:
        """The VMs that are kept ready. Raises UnsupportedError if this factory keeps none."""
        return self._source.statuses()

    async def aclose(self) -> None:
        """Kata's CloseFactory: ends the kept VMs and removes the template. VMs that were handed out stay."""
        with self._spans.span("CloseFactory", **SPAN_TAGS):
            await self._source.close()


@contextlib.asynccontextmanager
async def open_factory(
    config: FactoryConfig,
    *,
    host: FactoryHost,
    fetch_only: bool = False,
    generation: Generation = Generation.CURRENT,
    spans: Spans = NO_SPANS,
) -> AsyncIterator[Factory]:
    """Makes a factory by the rules of Kata's NewFactory; with `fetch_only` it uses what exists and makes nothing.

    At the end, everything that it runs is ended, kept VMs too; a template stays, unless `aclose` closed the factory.
    Raises InvalidConfigError, TemplateError, CacheError and other VmmErrors.
    """
    error: Exception | None = None
    kind = config.choose(fetch_only=fetch_only, generation=generation)
    valid = attrs.evolve(config, vm_config=config.vm_config.valid(generation))
    async with trio.open_nursery() as nursery:
        maker = _Maker(config=valid, host=host, nursery=nursery)
        try:
            with spans.span("NewFactory", **SPAN_TAGS):
                source = await maker.make(kind, fetch_only=fetch_only)
                vm_config = await maker.config_of(kind)
            yield Factory(source=source, maker=maker, vm_config=vm_config, generation=generation, spans=spans)
        except Exception as raised:  # noqa: BLE001 - raised below: the nursery would wrap it
            error = raised
        nursery.cancel_scope.cancel(reason="the factory's block has ended")
    if error is not None:
        raise error


@attrs.frozen(kw_only=True)
class _Maker:
    """Makes the parts of a factory."""

    config: FactoryConfig
    host: FactoryHost
    nursery: trio.Nursery

    async def make(self, kind: FactoryKind, *, fetch_only: bool) -> Source:
        match kind:
            case FactoryKind.CACHE_CLIENT:
                return ClientSource(host=self.host, endpoint=Path(self.config.vm_cache_endpoint), nursery=self.nursery)
            case FactoryKind.TEMPLATE:
                producer = await self._template(fetch_only=fetch_only)
                source: Source = TemplateSource(producer=producer, backend=producer.backend, nursery=self.nursery)
                return await self._cached(source, producer) if self.config.cache else source
            case FactoryKind.DIRECT:
                source = self.direct(self.config.vm_config)
                return await self._cached(source, self._booter()) if self.config.cache else source

    async def config_of(self, kind: FactoryKind) -> VMConfig:
        if kind is not FactoryKind.CACHE_CLIENT:
            return self.config.vm_config
        async with open_cache_client(Path(self.config.vm_cache_endpoint), timeout_s=CONNECT_LIMIT_S) as client:
            return client.config

    def direct(self, vm_config: VMConfig) -> DirectSource:
        profile = profile_of(attrs.evolve(self.config, vm_config=vm_config), FactoryKind.DIRECT)
        if not vm_config.hypervisor_config.initrd_path:
            raise UnsupportedError("vmpool boots an initrd only, not an image; set InitrdPath")
        return DirectSource(
            host=self.host,
            resolve=self.host.resolver(profile),
            boot_timeout_s=profile.boot_timeout_s,
            nursery=self.nursery,
        )

    def _booter(self) -> DirectBootProducer:
        profile = profile_of(self.config, FactoryKind.DIRECT)
        return DirectBootProducer(
            resolve=self.host.resolver(profile),
            launch=self.host.launch,
            vms_directory=self.host.vms_directory,
            boot_timeout_s=profile.boot_timeout_s,
        )

    async def _template(self, *, fetch_only: bool) -> TemplateProducer:
        """The existing template, or a new one, and its clone producer. Raises TemplateError, VmmError, KataError."""
        if self.config.agent is AgentKind.NOOP:
            raise UnsupportedError(UNLIKE_CLONES)
        profile = profile_of(self.config, FactoryKind.TEMPLATE)
        assert isinstance(profile.producer, TemplateSettings)
        assert profile.producer.template_directory is not None
        backend = self.host.templates(profile.producer.template_directory)
        resolve = self.host.resolver(profile)
        machine = await resolve()
        try:
            await backend.open(fingerprint=machine.fingerprint)
        except TemplateError:
            if fetch_only:
                raise
            await self._build(backend, machine, limit_s=profile.boot_timeout_s)
        else:
            if not fetch_only:
                raise InvalidConfigError(f"There is already a VM template in {self.config.template_path}")
        producer = TemplateProducer(
            resolve=resolve,
            backend=backend,
            launch=self.host.launch,
            vms_directory=self.host.vms_directory,
            new_vm_id=lambda: new_id("vm"),
            boot_timeout_s=profile.boot_timeout_s,
            fallback=False,
            fetch_only=True,
        )
        self.nursery.start_soon(Supervised(name="template", main=producer.run, policy=NEVER_GIVE_UP).run)
        return producer

    async def _build(self, backend: TemplateBackend, machine: ResolvedMachine, *, limit_s: float) -> None:
        vm_id = new_id("vm")
        directory = self.host.vms_directory / vm_id
        with backend.own(), trio.move_on_after(limit_s) as limit:
            await backend.build(machine.spec, fingerprint=machine.fingerprint, vm_id=vm_id, directory=directory)
        if limit.cancelled_caught:
            raise SnapshotError(what="building a template", reason=f"not done within {limit_s:g} s")

    async def _cached(self, under: Source, producer: Producer) -> CacheSource:
        hypervisor = self.config.vm_config.hypervisor_config
        coordinator = Coordinator(
            policies={
                PROFILE: PoolPolicy(
                    size=self.config.cache, memory_mib=hypervisor.memory_size, cost=PRODUCERS[producer.kind].cost
                )
            },
            producers={PROFILE: producer},
            journal=self.host.journal,
        )
        if isinstance(producer, DirectBootProducer):
            self.nursery.start_soon(Supervised(name="direct", main=producer.run, policy=NEVER_GIVE_UP).run)
        await self.nursery.start(coordinator.run)
        return CacheSource(
            coordinator=coordinator,
            host=self.host,
            under=under,
            vcpus=hypervisor.vcpus,
            memory_mib=hypervisor.memory_size,
            nursery=self.nursery,
        )


async def _make_ready(vm: Vm, *, base: HypervisorConfig, wanted: HypervisorConfig) -> PreparationReport:
    """Turns a base VM into a usable one: the second half of Kata's GetVM, with its steps in order."""
    vcpus = wanted.vcpus if wanted.vcpus > base.vcpus else None
    memory_mib = wanted.memory_size if wanted.memory_size > base.memory_size else None
    grows = vcpus is not None or memory_mib is not None
    limit_s = HAND_OUT_TIMEOUT_S + (GROWTH_TIMEOUT_S if grows else 0.0)
    try:
        with trio.fail_after(limit_s):
            await vm.resume()
            # In one request, in this order: reseed, then set the clock.
            report = await vm.agent.prepare(FRESH.reseeding(vm_uuid=vm.uuid))
            if vm.is_clone and not report.reseeded:
                raise UnsupportedError(
                    f"VM {vm.id!r} is a clone, and no agent in its guest can reseed it: it would draw the same random "
                    "numbers as its siblings; have the server boot its VMs (enable_template = false), or take base VMs "
                    "and reseed them"
                )
            if grows:
                await vm.grow(vcpus=vcpus or 0, memory_mib=memory_mib or 0)
            if grows and report.was_seen:
                await vm.agent.prepare(Preparation(vcpus=vcpus, memory_mib=memory_mib))
    except trio.TooSlowError as error:
        raise AgentUnreachableError(f"{vm.id}: not ready for use within {limit_s:g} s") from error
    return report
