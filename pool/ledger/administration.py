"""The administrators' requests: resize, drain, undrain, evict, reset."""

from __future__ import annotations

from typing import assert_never

import attrs

from pool.ledger import refusals
from pool.ledger.effects import Confirm, Refusal
from pool.ledger.events import (
    AdministrationRequest,
    DrainRequested,
    EvictRequested,
    ResetRequested,
    ResizeRequested,
    UndrainRequested,
)
from pool.ledger.moves import Moves
from pool.ledger.news import ProfileChange
from pool.ledger.policy import OnEmpty
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from vmm.words.life import VmState


@attrs.define(eq=False, kw_only=True)
class Administration:
    """Applies the requests. Permissions are checked at the edge."""

    moves: Moves

    def do(self, request: AdministrationRequest) -> None:
        refusal = self._evict_one(request.vm_id) if isinstance(request, EvictRequested) and request.vm_id else None
        if not (isinstance(request, EvictRequested) and request.vm_id):
            page = self.moves.fleet.pages.get(request.profile)
            if page is None or page.passing:
                names = (known.name for known in self.moves.fleet.pages.values() if not known.passing)
                refusal = refusals.unknown_profile(request.profile, known=names)
            elif isinstance(request, ResizeRequested) and page.demand is not None:
                refusal = refusals.size_follows_demand(page)
            else:
                self._change(page, request)
        if refusal is None:
            self.moves.effects.append(Confirm(request_id=request.request_id))
        else:
            self.moves.refuse(request.request_id, refusal)

    def _evict_one(self, vm_id: str) -> Refusal | None:
        entry = self.moves.fleet.get(vm_id)
        if entry is None:
            return refusals.unknown_vm(vm_id)
        if entry.state is not VmState.READY:
            return refusals.vm_in_use(entry)
        self.moves.evict(vm_id, StopReason.ADMIN, detail="its eviction was requested")
        return None

    def _change(self, page: ProfilePage, request: AdministrationRequest) -> None:
        match request:
            case ResizeRequested(size=size):
                page.shrinks_for = StopReason.RESIZE if size < page.size else page.shrinks_for
                page.size = size
                for claim in list(page.waiting) if not size else ():
                    if claim.on_empty is not OnEmpty.BOOT:  # no VM would ever be made for the claim
                        self.moves.refuse_claim(claim, refusals.nothing_ready(page))
                self.moves.tell_of(page, ProfileChange.RESIZED, str(size))
            case DrainRequested():
                for each in (page, *page.room.guests.values()):
                    each.drained = True
                    for claim in list(each.waiting):
                        self.moves.refuse_claim(claim, refusals.drained(each))
                self.moves.tell_of(page, ProfileChange.DRAINED, f"{page.out()} VMs are in use")
            case UndrainRequested():
                for each in (page, *page.room.guests.values()):
                    each.drained = False
                self.moves.tell_of(page, ProfileChange.UNDRAINED, f"the pool's size is {page.size}")
            case EvictRequested():
                for vm_id in page.ready:
                    page.ready.stale[vm_id] = StopReason.REPLACED
            case ResetRequested():
                page.failures.none()
                page.shells.failures.none()
                self.moves.tell_of(page, ProfileChange.CIRCUIT, "closed: its failures were reset by request")
            case _:
                assert_never(request)
