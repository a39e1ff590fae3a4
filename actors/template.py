"""The template producer: clones VMs from a snapshot that it builds, keeps, and rebuilds when necessary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import structlog
import trio
from trio_util import AsyncValue

from actors.errors import describe
from actors.machine import WATCH_S, ResolvedMachine, ResolveMachine
from actors.parking import park
from actors.producer import BaseVm, Launch, ProducerStatistics
from vmm.backend import TemplateBackend
from vmm.contract import Shell, Vm, VmTemplate
from vmm.errors import BootError, SnapshotError, TemplateError, VmmError
from vmm.words.kinds import ProducerKind
from vmm.words.processes import BootStage

_T = TypeVar("_T")

_log = structlog.get_logger("vmpool.template")

SUSPECT_AFTER: Final = 2
"""Clones that fail in a row before the template itself is considered broken and is rebuilt."""


@attrs.frozen(kw_only=True)
class _Pending:
    """The first template is being obtained."""


@attrs.frozen(kw_only=True)
class _Offer:
    """A template to clone from."""

    machine: ResolvedMachine
    template: VmTemplate
    generation: str


@attrs.frozen(kw_only=True)
class _Failed:
    """The last attempt to obtain a template failed; the next one may be under way."""

    machine: ResolvedMachine | None
    """The machine to boot instead, if it is resolved."""
    reason: str


@attrs.define(eq=False, kw_only=True)
class TemplateProducer:
    """Clones VMs. While no template is available, it boots them directly if `fallback` is set, and goes on trying.

    `run` fails when a template cannot be built or its clones do not work; its supervisor restarts it with back-off.
    """

    resolve: ResolveMachine
    backend: TemplateBackend
    launch: Launch
    """For the fallback."""
    vms_directory: Path
    new_vm_id: Callable[[], str]
    boot_timeout_s: float
    fallback: bool = True
    """Boot directly while no template is available. If false, production fails until one is."""
    fetch_only: bool = False
    """Use an existing template, which other services may use too; never build or discard one."""
    on_generation: Callable[[str], None] = lambda _: None
    """Called with the fingerprint of the VMs made from now on, each time it changes."""
    kind: Final = ProducerKind.TEMPLATE
    _offer: AsyncValue = attrs.field(factory=lambda: AsyncValue(_Pending()), repr=False)
    _clone_failures: AsyncValue = attrs.field(factory=lambda: AsyncValue(0), repr=False)
    """In a row."""
    _last_clone_error: str = ""
    _generation: str = ""
    _damages: int = 0
    """How many templates were damaged. Clones map their template's memory, so they are as damaged as it is."""
    _produced: int = 0
    _failed: int = 0
    _fallbacks: int = 0

    # -- the actor -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Obtains a template, watches it, and obtains another when it is outdated. Raises VmmError, OSError."""
        machine: ResolvedMachine | None = None
        try:
            machine = await self.resolve()
            with nullcontext() if self.fetch_only else self.backend.own():
                while True:
                    if isinstance(self._offer.value, _Offer):
                        self._offer.value = _Pending()
                    template = await self._obtain(machine)
                    self._clone_failures.value = 0
                    generation = self._generation_of(machine)
                    self._offer.value = _Offer(machine=machine, template=template, generation=generation)
                    self._announce(generation)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._until_unusable(machine, template)
                    machine = await self.resolve()
        except Exception as error:
            self._offer.value = _Failed(machine=machine, reason=describe(error))
            raise
        finally:
            if isinstance(self._offer.value, _Offer):  # cancelled; the template's memory is released
                self._offer.value = _Pending()

    async def _obtain(self, machine: ResolvedMachine) -> VmTemplate:
        try:
            template = await self.backend.open(fingerprint=machine.fingerprint)
        except TemplateError as error:
            if self.fetch_only:
                raise
            _log.info("building a template", because=error.reason, fingerprint=machine.fingerprint[:12])
        else:
            _log.info("template found", fingerprint=machine.fingerprint[:12])
            return template
        vm_id = self.new_vm_id()
        with trio.move_on_after(self.boot_timeout_s):
            template = await self.backend.build(
                machine.spec, fingerprint=machine.fingerprint, vm_id=vm_id, directory=self.vms_directory / vm_id
            )
            _log.info("template built", fingerprint=machine.fingerprint[:12])
            return template
        raise SnapshotError(
            what="building a template", reason=f"not done within boot_timeout_s ({self.boot_timeout_s:g} s)"
        )

    async def _until_unusable(self, machine: ResolvedMachine, template: VmTemplate) -> None:
        """Returns when the machine's inputs or the template's files changed; raises when clones keep failing."""
        while True:
            with trio.move_on_after(WATCH_S) as watch:
                await self._clone_failures.wait_value(lambda count: count >= SUSPECT_AFTER)
            if not machine.is_current():
                _log.info("kernel, initramfs or QEMU changed", fingerprint=machine.fingerprint[:12])
                return
            try:
                template.check()
            except TemplateError as error:
                _log.warning("template is damaged", error=error.reason)
                self._damages += 1
                self._announce(self._generation_of(machine))
                await self._discard()
                return
            if not watch.cancelled_caught:
                await self._discard()
                raise TemplateError(
                    reason=f"{SUSPECT_AFTER} clones in a row failed, the last one with: {self._last_clone_error}"
                )

    async def _discard(self) -> None:
        if not self.fetch_only:  # otherwise the template is not this service's
            await self.backend.discard()

    def _generation_of(self, machine: ResolvedMachine) -> str:
        """The machine's fingerprint, changed by each damaged template."""
        return f"{machine.fingerprint}.{self._damages}" if self._damages else machine.fingerprint

    def _announce(self, generation: str) -> None:
        if generation != self._generation:
            self._generation = generation
            self.on_generation(generation)

    # -- the service ---------------------------------------------------------------------------------------------

    async def produce(self, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        """Clones a VM, or boots one while no template is available. See `Producer.produce`."""
        offer = await self._current_offer()
        if isinstance(offer, _Failed):
            return await self._boot(offer, vm_id=vm_id, nursery=nursery)

        async def bring_up() -> Vm:
            shell = await self._start_shell(offer, vm_id=vm_id, nursery=nursery)
            return await self.backend.clone(shell, template=offer.template, nursery=nursery)

        return await self._clone(offer, bring_up)

    async def start_shell(self, *, vm_id: str, nursery: trio.Nursery) -> Shell:
        """See `ShellProducer.start_shell`. Fails while no template is available."""
        offer = await self._current_offer()
        if isinstance(offer, _Failed):
            raise TemplateError(reason=f"none is available to start a shell from: {offer.reason}")
        start = partial(self._start_shell, offer, vm_id=vm_id, nursery=nursery)
        try:
            with trio.fail_after(self.boot_timeout_s):
                return await self._attempt(start)
        except trio.TooSlowError as error:
            raise BootError(stage=BootStage.QMP, reason=f"no shell within {self.boot_timeout_s:g} s") from error

    async def fill_shell(self, shell: Shell, *, nursery: trio.Nursery) -> BaseVm:
        """See `ShellProducer.fill_shell`. A shell of an earlier template is ended."""
        offer = await self._current_offer()
        if isinstance(offer, _Failed) or offer.generation != shell.generation:
            await shell.stop()
            raise TemplateError(reason="this shell is of an earlier template")
        bring_up = partial(self.backend.clone, shell, template=offer.template, nursery=nursery)
        return await self._clone(offer, bring_up)

    async def _current_offer(self) -> _Offer | _Failed:
        offer: _Offer | _Failed = await self._offer.wait_value(lambda value: not isinstance(value, _Pending))
        return offer

    async def _start_shell(self, offer: _Offer, *, vm_id: str, nursery: trio.Nursery) -> Shell:
        return await self.backend.start_shell(
            offer.machine.spec,
            template=offer.template,
            generation=offer.generation,
            vm_id=vm_id,
            directory=self.vms_directory / vm_id,
            nursery=nursery,
        )

    async def _clone(self, offer: _Offer, bring_up: Callable[[], Awaitable[Vm]]) -> BaseVm:
        vm = await self._attempt(partial(park, bring_up, timeout_s=self.boot_timeout_s))
        self._clone_failures.value = 0
        self._produced += 1
        return BaseVm(vm=vm, generation=offer.generation, made_by=ProducerKind.TEMPLATE)

    async def _attempt(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """A step of a clone; its failures count against the template, except those that it cannot have caused."""
        try:
            return await step()
        except VmmError as error:
            self._failed += 1
            self._last_clone_error = describe(error)
            if not (isinstance(error, BootError) and error.stage is BootStage.SPAWN):
                self._clone_failures.value += 1
            raise

    async def _boot(self, failed: _Failed, *, vm_id: str, nursery: trio.Nursery) -> BaseVm:
        machine = failed.machine
        if not self.fallback or machine is None:
            self._failed += 1
            raise TemplateError(reason=failed.reason)
        self._announce(self._generation_of(machine))  # the machine may differ from the last template's
        bring_up = partial(
            self.launch, machine.spec, vm_id=vm_id, directory=self.vms_directory / vm_id, nursery=nursery
        )
        try:
            vm = await park(bring_up, timeout_s=self.boot_timeout_s)
        except VmmError:
            self._failed += 1
            raise
        self._produced += 1
        self._fallbacks += 1
        return BaseVm(vm=vm, generation=self._generation_of(machine), made_by=ProducerKind.DIRECT)

    def statistics(self) -> ProducerStatistics:
        offer: _Pending | _Offer | _Failed = self._offer.value
        machine = None if isinstance(offer, _Pending) else offer.machine
        return ProducerStatistics(
            kind=self.kind,
            ready=isinstance(offer, _Offer),
            accelerator=machine.spec.accelerator.value if machine else None,
            detail=self._detail(offer),
            produced=self._produced,
            failed=self._failed,
            fallbacks=self._fallbacks,
        )

    def _detail(self, offer: _Pending | _Offer | _Failed) -> str:
        match offer:
            case _Pending():
                return "getting a template"
            case _Offer(machine=machine, template=template):
                return f"template {template.fingerprint[:12]}; {machine.reason}"
            case _Failed(reason=reason):
                return f"{reason}; {'booting directly until it works' if self.fallback else 'trying again'}"
