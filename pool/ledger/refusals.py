"""What the ledger says no with: each sentence names the field, and ends in what the caller can do."""

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
        message=f"{field} = {wished}: profile {profile} allows at most {maximum}; ask for less, or raise max_{field}",
    )


def between_blocks(*, wished: int, page: ProfilePage) -> Refusal:
    """It is below the maximum, and the step that leads there goes beyond that."""
    least, most = page.policy.memory_mib, page.policy.max_memory_mib
    assert most is not None
    sizes = [str(size) for size in range(least, most + 1, MEMORY_BLOCK_MIB)]
    if len(sizes) > _SIZES_NAMED:
        sizes = [*sizes[:2], "...", sizes[-1]]
    return Refusal(
        code=RefusalCode.OVER_MAXIMUM,
        message=f"memory_mib = {wished}: memory comes in blocks of {MEMORY_BLOCK_MIB} MiB, so a VM of profile "
        f"{page.name} can have {', '.join(sizes)} MiB; ask for one of these, or raise max_memory_mib",
    )


def nothing_ready(page: ProfilePage) -> Refusal:
    return Refusal(
        code=RefusalCode.NOTHING_READY,
        message=f"profile {page.name}: no VM is ready ({_state_of(page)}); "
        "ask with on_empty WAIT or BOOT, or raise the pool's size",
    )


def too_late(page: ProfilePage, claim: Claim | None, *, held_back: str) -> Refusal:
    """`claim`: that of the caller who waited, if he did."""
    why = f"; {held_back}" if held_back else ""
    if claim is not None and claim.last_failure:
        why = f"; the last hand-out to this caller failed: {claim.last_failure}"
    elif claim is not None and claim.vm_id is not None:
        why = f"; {claim.vm_id} was chosen, and its hand-out is not done: its guest has not answered"
    elif not page.has_room():
        why = f"; max_vms = {page.policy.max_vms} is reached"
    return Refusal(
        code=RefusalCode.DEADLINE,
        message=f"profile {page.name}: no VM in time ({_state_of(page)}{why}); "
        "allow more time or raise the pool's size",
    )


def over_budget(*, needed: int, budget: float) -> Refusal:
    return Refusal(
        code=RefusalCode.OVER_MAXIMUM,
        message=f"memory_mib: the VM would take {needed} MiB, all VMs together may take {budget:g}; "
        "ask for less, or raise limits.memory_budget_mib",
    )


def too_many_leases(owner: Owner, *, has: int) -> Refusal:
    return Refusal(
        code=RefusalCode.QUOTA,
        message=f"user {owner.uid} has {has} VMs already, or asked for them; "
        "release one, or raise limits.leases_per_user",
    )


def too_many_requests(owner: Owner, *, waiting: int) -> Refusal:
    return Refusal(
        code=RefusalCode.QUOTA,
        message=f"{waiting} requests of user {owner.uid} wait already; "
        "try again later, or raise limits.requests_per_user",
    )


def crowded(owner: Owner, *, waiting: int, of_all: int) -> Refusal:
    return Refusal(
        code=RefusalCode.CROWDED,
        message=f"{of_all} requests wait already, {waiting} of them user {owner.uid}'s, and nobody may have more than "
        "are left for others; try again later, or raise limits.max_open_requests",
    )


def drained(page: ProfilePage) -> Refusal:
    name = page.policy.within or page.name
    return Refusal(
        code=RefusalCode.DRAINED,
        message=f"profile {name} is drained; undrain it with `vmpool undrain {name}`, or use another",
    )


def circuit_open(page: ProfilePage, *, now: float) -> Refusal:
    return Refusal(
        code=RefusalCode.CIRCUIT_OPEN,
        message=f"profile {page.name}: the last {page.failures.in_a_row} productions failed, the last one with: "
        f"{page.last_error}; nothing is booted for {max(0.0, page.failures.retry_at - now):.1f} s; "
        f"mend the cause and use `vmpool reset {page.name}`",
    )


def size_follows_demand(page: ProfilePage) -> Refusal:
    return Refusal(
        code=RefusalCode.ADAPTIVE,
        message=f"size: that of profile {page.name} follows its demand; set minimum and maximum in "
        f"profiles.{page.name}.adaptive",
    )


def unknown_vm(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.UNKNOWN_VM,
        message=f"vm_id: there is no VM {vm_id!r}; `vmpool watch` shows which there are",
    )


def foreign_vm(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.FOREIGN_LEASE,
        message=f"vm_id: {vm_id} is not yours; its console is for the owner of its lease, and for administrators",
    )


def vm_not_up(vm_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.VM_NOT_UP,
        message=f"vm_id: {vm_id} is not up yet, or not any more; `vmpool watch` shows its state",
    )


def vm_in_use(entry: VmEntry) -> Refusal:
    return Refusal(
        code=RefusalCode.VM_IN_USE,
        message=f"vm_id: {entry.vm_id} is {entry.state.value}, and only ready VMs are evicted; "
        + ("release its lease instead" if entry.state is VmState.LEASED else "look again in a moment"),
    )


def production_failed(page: ProfilePage, *, reason: str) -> Refusal:
    return Refusal(
        code=RefusalCode.PRODUCTION_FAILED,
        message=f"profile {page.name}: the VM booted for this request failed: {reason}",
    )


def hand_out_failed(page: ProfilePage, claim: Claim, *, reason: str) -> Refusal:
    return Refusal(
        code=RefusalCode.HAND_OUT_FAILED,
        message=f"profile {page.name}: {claim.attempts} hand-outs failed, the last one with: {reason}",
    )


_SIZES_NAMED: Final = 6
"""Of memory; of more only the first and the last."""

_OF_WISHES: Final[Mapping[Obstacle, tuple[RefusalCode, str]]] = {
    Obstacle.REQUEST: (RefusalCode.WISH_REFUSED, "correct it, or leave it out"),
    Obstacle.EXHAUSTED: (RefusalCode.WISH_TOO_MUCH, "ask for less"),
    Obstacle.UNABLE: (RefusalCode.WISH_UNSUPPORTED, "leave it out, or use a profile whose guests can do it"),
}


def wish_refused(page: ProfilePage, fact: WishRefused) -> Refusal:
    code, remedy = _OF_WISHES[fact.obstacle]
    return Refusal(code=code, message=f"{fact.field}: profile {page.name}: {fact.reason}; {remedy}")


def key_reused(known: Claim | Lease) -> Refusal:
    return Refusal(
        code=RefusalCode.KEY_REUSED,
        message=f"idempotency_key: {known.request.key!r} is in use for a lease of profile {known.profile!r} that "
        f"{'ends with' if known.request.bound else 'outlives'} its call; use a new key",
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
        message=f"lease_id: the renewal of lease {lease.lease_id} cannot be written down, so it ends when it was to "
        "end before; see that the service's runtime directory has room, and renew it again",
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
