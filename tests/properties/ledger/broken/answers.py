"""Ledgers that say the wrong thing, though what they keep is right."""

from __future__ import annotations

from typing import Any

import attrs

from pool.ledger.book import Ledger
from pool.ledger.effects import CheckVm, Effect, FillShell, Grant, HandOutVm, LeaseEnded, Refuse, StartVm, StopVm, Tell
from pool.ledger.events import Event, RequestAbandoned, Tick
from pool.ledger.news import VmNews
from tests.properties.ledger.vms import REPORT, TIMINGS
from vmm.words.facts import VmHandedOut, VmLost, WishRefused
from vmm.words.life import VmState


class _Twice(Ledger):
    """Says everything of one kind twice."""

    kind: type[Any]

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        return [*effects, *(effect for effect in effects if isinstance(effect, self.kind))]


class StartsTwice(_Twice):
    kind = StartVm


class FillsTwice(_Twice):
    kind = FillShell


class HandsOutTwice(_Twice):
    kind = HandOutVm


class StopsTwice(_Twice):
    kind = StopVm


class GrantsTwice(_Twice):
    kind = Grant


class RefusesTwice(_Twice):
    kind = Refuse


class SaysTwiceThatALeaseEnded(_Twice):
    kind = LeaseEnded


class IgnoresAbandonment(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        return super().apply(Tick() if isinstance(event, RequestAbandoned) else event, now=now)


class GrantsToSomebodyElse(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        return [
            attrs.evolve(e, lease=attrs.evolve(e.lease, terms=attrs.evolve(e.lease.terms, owner_uid=4711)))
            if isinstance(e, Grant)
            else e
            for e in super().apply(event, now=now)
        ]


class GrantsBeforeTheHandOutIsDone(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        for vm_id in [effect.vm_id for effect in effects if isinstance(effect, HandOutVm)]:
            self._facts.note(VmHandedOut(vm_id=vm_id, report=REPORT, timings=TIMINGS), now=now)
        return effects + self._moves.take_effects()


class GrantsOneVmAgain(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        leases = self.leases()
        return [
            attrs.evolve(e, lease=attrs.evolve(e.lease, vm_id=leases[0].vm_id))
            if isinstance(e, Grant) and leases
            else e
            for e in super().apply(event, now=now)
        ]


class TakesARefusedWishForALostVm(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        if isinstance(event, WishRefused):
            event = VmLost(vm_id=event.vm_id, reason=event.reason)
        return super().apply(event, now=now)


class TakesALostVmForARefusedWish(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        if isinstance(event, VmLost) and self._moves.fleet[event.vm_id].state is VmState.HANDING_OUT:
            self._facts.note(WishRefused(vm_id=event.vm_id, field="files", reason=event.reason), now=now)
        return super().apply(event, now=now)


class SkipsNews(Ledger):
    """Whoever watches misses that VMs become ready."""

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        return [
            effect
            for effect in super().apply(event, now=now)
            if not (isinstance(effect, Tell) and isinstance(effect.news, VmNews))
            or effect.news.state is not VmState.READY
        ]


class ChecksWhoeverIsThere(Ledger):
    """Those in production and those that are leased too."""

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        ordered = [effect.vm_id for effect in effects if isinstance(effect, CheckVm)]
        return [*effects, *(CheckVm(vm_id=vm.vm_id) for vm in self.vms() if ordered and vm.vm_id not in ordered)]


class WantsATickAllTheTime(Ledger):
    def next_wakeup(self) -> float:
        return 0.0


class ForgetsToRetry(Ledger):
    def next_wakeup(self) -> float:
        return self._moves.claims.next_deadline()
