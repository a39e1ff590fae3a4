"""Services with one fault each, to prove that the checks can fail. By the name of the check that must notice."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from actors.clock import HostClock
from actors.journal import Journal
from actors.record import VmRecord
from actors.vigil import Vigil
from actors.vm import VmActor
from pool.core.recovery import Recovered, recover
from pool.ledger import refusals
from pool.ledger.callers import Callers
from pool.ledger.effects import Refusal
from pool.ledger.events import FoundVm, RenewalRecorded, RenewRequested
from pool.ledger.facts import Facts
from pool.ledger.reasons import StopReason
from pool.ledger.records import Owner, VmEntry
from tests.properties.ledger.broken import answers, callers
from tests.properties.ledger.broken.ledger import ledger_with
from tests.simulation.broken_guests import BROKEN_GUESTS
from tests.simulation.host import Host, boottime_ns
from tests.simulation.simulation import Parts
from vmm.contract import Vm
from vmm.words.facts import VmHandedOut
from vmm.words.leases import HandOutOrder, LeaseTerms


def with_ledger(part: type[Any]) -> Parts:
    """`part` takes the place of a part of the ledger."""
    make = ledger_with(part)

    def break_coordinator(coordinator: Any) -> None:
        coordinator._ledger = make(
            policies=coordinator.policies,
            service=coordinator.service,
            new_id=coordinator.make_id,
            rng=coordinator.rng,
            first_fencing_token=coordinator._ledger.first_fencing_token,
        )

    return Parts(name=part.__name__, break_coordinator=break_coordinator)


# -- actors ----------------------------------------------------------------------------------------------------------


class RaisesInHandOut(VmActor):
    async def _hand_out(self, terms: LeaseTerms) -> None:
        raise RuntimeError("a bug")


class StopsWhatItMade(VmActor):
    async def _produce(self, *nurseries: Any) -> None:
        await super()._produce(*nurseries)
        assert self._vm is not None
        await self._vm.stop()


class GivesUpSilentGuests(VmActor):
    """Whatever QEMU says."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.vigil = _AsksNoQemu(**attrs.asdict(self.vigil))


class _AsksNoQemu(Vigil):
    async def _state(self, vm: Vm) -> str:
        return ""


class NeverAsksForTheTime(VmActor):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.vigil = Vigil(interval_s=math.inf)


class GoesByAnotherClock(VmActor):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.host_clock = HostClock(now_ns=boottime_ns, monotonic_ns=boottime_ns)


class LeavesIdleVmsRunning(VmActor):
    async def _idle(self) -> HandOutOrder:
        assert self._vm is not None
        await self._vm.resume()
        return await super()._idle()


class LetsGoInsteadOfStopping(VmActor):
    def stop(self, reason: str) -> None:
        self.detach(reason)


class SaysThatItHasRecordedRenewals(VmActor):
    def renew(self, expires_in_s: float) -> bool:
        return True


class GoesOnWithADeadVm(VmActor):
    """As it was: an order that had come before the VM died was begun after it."""

    async def _idle(self) -> HandOutOrder:
        return await self._inbox.receive()  # type: ignore[return-value]


# -- journals --------------------------------------------------------------------------------------------------------


class RecordsNothing(Journal):
    def write(self, record: VmRecord) -> None:
        pass


class ErasesNothing(Journal):
    def erase(self, vm_id: str) -> None:
        pass


class TakesLeasedVmsForIdle(ErasesNothing):
    def write(self, record: VmRecord) -> None:
        super().write(attrs.evolve(record, lease=None))


# -- ledgers ---------------------------------------------------------------------------------------------------------


class EndsLeasesEarly(Facts):
    def handed_out(self, entry: VmEntry, fact: VmHandedOut, *, now: float) -> None:
        super().handed_out(entry, fact, now=now)
        assert entry.lease_id is not None
        self.moves.leases._expiries.set(entry.lease_id, now + 1.0)


class AnswersNobodyTooLate(Callers):
    def expire(self, *, now: float) -> None:
        for request_id, _ in self.moves.claims.overdue(now=now):
            self.moves.leave_claim(request_id, StopReason.DEADLINE, detail="")
        super().expire(now=now)


class CountsEverybodysRequestsAsOnes(Callers):
    def _too_many_wait(self, owner: Owner) -> Refusal | None:
        waiting = self.moves.claims.waiting()
        limit = self.moves.service.requests_per_uid
        return refusals.too_many_requests(owner, waiting=waiting) if waiting >= limit else None


class ForgetsLeasesThatAreRenewed(Callers):
    def renewal_recorded(self, event: RenewalRecorded, *, now: float) -> None:
        super().renewal_recorded(event, now=now)
        lease = self.moves.leases._live.get(event.renewal.lease_id)
        if lease is not None:
            self.moves.leases.let_go(lease)


class ForgetsNamesOfGrantedLeases(Facts):
    def handed_out(self, entry: VmEntry, fact: VmHandedOut, *, now: float) -> None:
        super().handed_out(entry, fact, now=now)
        self.moves.leases._of_name.clear()


class RaisesOnRenewals(Callers):
    def renew(self, event: RenewRequested, *, now: float) -> None:
        raise RuntimeError("a bug")


# -- recovery --------------------------------------------------------------------------------------------------------


async def sweep_nothing(_host: Host, _vms: Path, *, keep: Collection[str], given_away: Collection[str] = ()) -> None:
    pass


async def sweep_all(host: Host, vms: Path, *, keep: Collection[str], given_away: Collection[str] = ()) -> None:
    await host.sweep(vms, keep=())


async def recover_without_keys(*arguments: Any, **options: Any) -> Recovered:
    recovered = await recover(*arguments, **options)
    return attrs.evolve(recovered, found=tuple(_with_the_first_token(vm) for vm in recovered.found))


def _with_the_first_token(vm: FoundVm) -> FoundVm:
    if vm.lease is None:
        return vm
    return attrs.evolve(vm, lease=attrs.evolve(vm.lease, terms=attrs.evolve(vm.lease.terms, fencing_token=1)))


BROKEN: Final[Mapping[str, tuple[Parts, ...]]] = {
    "requests_are_answered_once": (with_ledger(answers.GrantsTwice),),
    "requests_are_answered_in_time": (with_ledger(AnswersNobodyTooLate),),
    "nobody_is_refused_for_what_others_ask": (with_ledger(CountsEverybodysRequestsAsOnes),),
    "the_service_does_not_spin": (with_ledger(answers.WantsATickAllTheTime),),
    "no_actor_has_a_bug": (
        Parts(name="RaisesInHandOut", actor=RaisesInHandOut),
        Parts(name="GoesOnWithADeadVm", actor=GoesOnWithADeadVm),
    ),
    "no_run_of_the_service_crashes": (with_ledger(RaisesOnRenewals),),
    "the_ledger_is_sound": (with_ledger(callers.KeepsReleasedVms),),
    "no_vm_without_an_owner": (Parts(name="sweep_nothing", sweep=sweep_nothing),),
    "nothing_is_left": (Parts(name="sweep_nothing", sweep=sweep_nothing),),
    "no_lease_without_a_vm": (Parts(name="sweep_all", sweep=sweep_all),),
    "vms_in_the_books_are_there": (Parts(name="StopsWhatItMade", actor=StopsWhatItMade),),
    "guests_tell_the_time": (
        Parts(name="NeverAsksForTheTime", actor=NeverAsksForTheTime),
        Parts(name="GoesByAnotherClock", actor=GoesByAnotherClock),
    ),
    "idle_vms_are_paused": (Parts(name="LeavesIdleVmsRunning", actor=LeavesIdleVmsRunning),),
    "who_may_be_adopted_is_recorded": (Parts(name="RecordsNothing", journal=RecordsNothing),),
    "leases_survive_the_service": (Parts(name="RecordsNothing", journal=RecordsNothing),),
    "nobody_else_is_recorded": (Parts(name="ErasesNothing", journal=ErasesNothing),),
    "no_vm_is_handed_out_twice": (Parts(name="TakesLeasedVmsForIdle", journal=TakesLeasedVmsForIdle),),
    "no_vm_is_leased_twice": (Parts(name="TakesLeasedVmsForIdle", journal=TakesLeasedVmsForIdle),),
    "a_drain_leaves_nothing": (Parts(name="LetsGoInsteadOfStopping", actor=LetsGoInsteadOfStopping),),
    "a_released_lease_does_not_come_back": (Parts(name="LetsGoInsteadOfStopping", actor=LetsGoInsteadOfStopping),),
    "leases_keep_their_time": (Parts(name="SaysThatItHasRecordedRenewals", actor=SaysThatItHasRecordedRenewals),),
    "no_lease_changes": (Parts(name="recover_without_keys", recover=recover_without_keys),),
    "fencing_tokens_grow": (Parts(name="counts from one", token_clock=lambda: 0),),
    "no_lease_ends_early": (
        with_ledger(EndsLeasesEarly),
        Parts(name="GivesUpSilentGuests", actor=GivesUpSilentGuests),
    ),
    "no_lease_is_forgotten": (with_ledger(ForgetsLeasesThatAreRenewed),),
    "a_key_leads_to_one_lease": (with_ledger(callers.ForgetsTheKeysOfLeases),),
    "a_name_leads_to_one_lease": (with_ledger(callers.ForgetsTheNamesOfLeases),),
    "a_name_leads_to_its_lease": (with_ledger(ForgetsNamesOfGrantedLeases),),
    "clients_come_to_an_end": (with_ledger(callers.LetsClaimsWait),),
    "in_quiet_times_the_service_comes_to_rest": (with_ledger(answers.ForgetsToRetry),),
    "watchers_see_all_there_is": (with_ledger(answers.SkipsNews),),
    **BROKEN_GUESTS,
}
