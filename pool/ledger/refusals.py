"""The ledger's refusals: each message names the field or profile and says what the caller can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pool.ledger.effects import Refusal, RefusalCode
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim, EndedLease, Lease, Owner, VmEntry
from vmm.words.facts import Obstacle, WishRefused
from vmm.words.life import VmState
from vmm.words.machines import MEMORY_BLOCK_MIB


def unknown_profile(name: str, *, known: Iterable[str]) -> Refusal:
    return Refusal(
        code=RefusalCode.UNKNOWN_PROFILE,
        message=f"profile: there is no profile {name!r}; configured: {', '.join(sorted(known)) or 'none'}",
    )


def shutting_down() -> Refusal:
    return Refusal(code=RefusalCode.SHUTTING_DOWN, message="the service is shutting down; try again later")


def over_maximum(field: str, *, wished: int, maximum: int, profile: str) -> Refusal:
    return Refusal(
        code=RefusalCode.OVER_MAXIMUM,
        message=f"{field}: {wished} exceeds the maximum of profile {profile} ({maximum}); "
        f"request less, or raise max_{field}",
    )


def between_blocks(*, wished: int, page: ProfilePage) -> Refusal:
    """The size is below the maximum, but rounded up to a whole block it is above."""
    least, most = page.policy.memory_mib, page.policy.max_memory_mib
    assert most is not None
    sizes = [str(size) for size in range(least, most + 1, MEMORY_BLOCK_MIB)]
    if len(sizes) > _SIZES_NAMED:
        sizes = [*sizes[:2], "...", sizes[-1]]
    return Refusal(
        code=RefusalCode.OVER_MAXIMUM,
        message=f"memory_mib: {wished} is not available; memory is added in blocks of {MEMORY_BLOCK_MIB} MiB, so a VM "
        f"of profile {page.name} can have {', '.join(sizes)} MiB; request one of these, or raise max_memory_mib",
    )


def nothing_ready(page: ProfilePage) -> Refusal:
    return Refusal(
        code=RefusalCode.NOTHING_READY,
        message=f"profile {page.name}: no VM is ready ({_state_of(page)}); "
        "set on_empty to WAIT or BOOT, or raise the pool's size",
    )


def too_late(page: ProfilePage, claim: Claim | None, *, held_back: str) -> Refusal:
    """`claim`: the waiting caller's claim, if there is one."""
    why = f"; {held_back}" if held_back else ""
    if claim is not None and claim.last_failure:
        why = f"; the last hand-out to this caller failed: {claim.last_failure}"
    elif claim is not None and claim.vm_id is not None:
        why = f"; {claim.vm_id} was chosen, but its guest has not answered yet"
    elif not page.has_room():
        why = f"; max_vms ({page.policy.max_vms}) is reached"
    return Refusal(
        code=RefusalCode.DEADLINE,
        message=f"profile {page.name}: no VM became available in time ({_state_of(page)}{why}); "
        "allow more time or raise the pool's size",
    )


def over_budget(*, needed: int, budget: float) -> Refusal:
    return Refusal(
        code=RefusalCode.OVER_MAXIMUM,
        message=f"memory_mib: the VM needs {needed} MiB, but all VMs together may have at most {budget:g} MiB; "
        "request less, or raise limits.memory_budget_mib",
    )


def too_many_leases(owner: Owner, *, has: int) -> Refusal:
    return Refusal(
        code=RefusalCode.QUOTA,
        message=f"user {owner.uid} already has {has} VMs, including requested ones; "
        "release one, or raise limits.leases_per_user",
    )


def too_many_requests(owner: Owner, *, waiting: int) -> Refusal:
    return Refusal(
        code=RefusalCode.QUOTA,
        message=f"user {owner.uid} already has {waiting} requests waiting; "
        "try again later, or raise limits.requests_per_user",
    )


def crowded(owner: Owner, *, waiting: int, of_all: int) -> Refusal:
    return Refusal(
        code=RefusalCode.CROWDED,
        message=f"{of_all} requests are already waiting, {waiting} of them from user {owner.uid}; one user may have at "
        "most as many as remain for others; try again later, or raise limits.max_open_requests",
    )


def drained(page: ProfilePage) -> Refusal:
    name = page.policy.within or page.name
    return Refusal(
        code=RefusalCode.DRAINED,
        message=f"profile {name} is drained; undrain it with `vmpool undrain {name}`, or use another profile",
    )


def circuit_open(page: ProfilePage, *, now: float) -> Refusal:
    return Refusal(
        code=RefusalCode.CIRCUIT_OPEN,
        message=f"profile {page.name}: the last {page.failures.in_a_row} productions failed, the most recent with: "
        f"{page.last_error}; nothing is booted for the next {max(0.0, page.failures.retry_at - now):.1f} s; "
        f"fix the cause, then run `vmpool reset {page.name}`",
    )


def size_follows_demand(page: ProfilePage) -> Refusal:
    return Refusal(
        code=RefusalCode.ADAPTIVE,
        message=f"size: the size of profile {page.name} follows its demand; set minimum and maximum in "
        f"profiles.{page.name}.adaptive instead",
    )


def unknown_vm(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.UNKNOWN_VM,
        message=f"vm_id: there is no VM {vm_id!r}; `vmpool watch` lists the VMs",
    )


def foreign_vm(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.FOREIGN_LEASE,
        message=f"vm_id: {vm_id} is not leased to you; only its lease's owner and administrators may read its console",
    )


def vm_not_up(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.VM_NOT_UP,
        message=f"vm_id: {vm_id} is not up yet, or no longer up; `vmpool watch` shows its state",
    )


def vm_in_use(entry: VmEntry) -> Refusal:
    return Refusal(
        code=RefusalCode.VM_IN_USE,
        message=f"vm_id: {entry.vm_id} is {entry.state.value}; only ready VMs can be evicted; "
        + ("release its lease instead" if entry.state is VmState.LEASED else "try again in a moment"),
    )


def production_failed(page: ProfilePage, *, reason: str) -> Refusal:
    return Refusal(
        code=RefusalCode.PRODUCTION_FAILED,
        message=f"profile {page.name}: the VM booted for this request failed: {reason}",
    )


def hand_out_failed(page: ProfilePage, claim: Claim, *, reason: str) -> Refusal:
    return Refusal(
        code=RefusalCode.HAND_OUT_FAILED,
        message=f"profile {page.name}: {claim.attempts} hand-outs failed, the most recent with: {reason}",
    )


_SIZES_NAMED: Final = 6
"""Of longer lists of sizes only the first two and the last are named."""

_OF_WISHES: Final[Mapping[Obstacle, tuple[RefusalCode, str]]] = {
    Obstacle.REQUEST: (RefusalCode.WISH_REFUSED, "correct it, or leave it out"),
    Obstacle.EXHAUSTED: (RefusalCode.WISH_TOO_MUCH, "request less"),
    Obstacle.UNABLE: (RefusalCode.WISH_UNSUPPORTED, "leave it out, or use a profile whose guests support it"),
}


def wish_refused(page: ProfilePage, fact: WishRefused) -> Refusal:
    code, remedy = _OF_WISHES[fact.obstacle]
    return Refusal(code=code, message=f"{fact.field}: profile {page.name}: {fact.reason}; {remedy}")


def key_reused(known: Claim | Lease) -> Refusal:
    return Refusal(
        code=RefusalCode.KEY_REUSED,
        message=f"idempotency_key: {known.request.key!r} is already in use for "
        f"{'Hold' if known.request.bound else 'Acquire'} with profile {known.profile!r}; use a new key",
    )


def name_taken(name: str) -> Refusal:
    return Refusal(
        code=RefusalCode.NAME_TAKEN,
        message=f"name: a lease of yours, or a request for one, already has the name {name!r}; use another name, or "
        "release that lease",
    )


def unknown_name(name: str) -> Refusal:
    return Refusal(
        code=RefusalCode.UNKNOWN_NAME,
        message=f"name: none of your leases has the name {name!r}; ListLeases returns them all",
    )


def unknown_lease(lease_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.UNKNOWN_LEASE,
        message=f"lease_id: there is no lease {lease_id!r}; use the lease_id that Acquire returned",
    )


def foreign_lease(lease_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.FOREIGN_LEASE,
        message=f"lease_id: lease {lease_id} belongs to another user; only its owner and root may use it",
    )


def not_recorded(lease: Lease) -> Refusal:
    return Refusal(
        code=RefusalCode.NOT_RECORDED,
        message=f"lease_id: the renewal of lease {lease.lease_id} could not be recorded, so the lease keeps its "
        "previous expiry; make room in the service's runtime directory, then renew it again",
    )


def lease_ended(ended: EndedLease) -> Refusal:
    return Refusal(
        code=RefusalCode.LEASE_ENDED,
        message=f"lease_id: lease {ended.lease_id} has already ended ({ended.reason.value}: {ended.detail}); "
        "acquire another VM",
    )


def _state_of(page: ProfilePage) -> str:
    words = f"{page.producing()} in production, {len(page.waiting)} waiting"
    return f"{words}, last error: {page.last_error}" if page.failures.in_a_row else words
