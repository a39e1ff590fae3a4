"""What clients were told, and what follows from that for the service, whichever run of it: the promises.

Everything here comes from answers that a client has read; what the service believes has no part in it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs
import trio

from pool.core.recovery import RECONNECT_S
from pool.ledger.records import Lease, Owner
from tests.simulation.findings import Findings, brief
from tests.simulation.plan import VIGIL
from vmm.simulated.machine import Machine

ROUNDING_S: Final = 1e-6
"""Records have whole nanoseconds."""


class Standing(enum.Enum):
    PROMISED = "promised"
    """A client has it, and nobody has asked for its end."""
    LOOSE = "loose"
    """Its end was asked for, or its client may have lost it: it may end at any time."""
    OVER = "over"
    """The service has said that it has ended."""


@attrs.define(eq=False, kw_only=True)
class Held:
    """A lease that a client was given."""

    lease: Lease
    expires_at: float
    recorded_until: float | None
    """As it was granted or renewed; None if it may be this or that. A run of the service may give less to one that is
    bound, while nobody holds it."""
    standing: Standing = Standing.PROMISED
    renewals: int = 0
    """Renewals that nobody knows the outcome of: it may end at its old time or at a new one."""
    released: bool = False
    """The service has confirmed it."""

    def __str__(self) -> str:
        return f"{brief(self.lease)}; {self.standing.value}, expected until {self.expires_at:.9f}"


@attrs.define(eq=False, kw_only=True)
class Books:
    findings: Findings
    machines: Mapping[str, Machine]
    refused: set[str]
    """VMs whose records the disk refused: what was to be on it may not be."""
    held: dict[str, Held] = attrs.field(factory=dict)
    """By lease id; for ever."""
    ended: set[str] = attrs.field(factory=set)
    """Leases whose end the service has told."""
    told: dict[str, float] = attrs.field(factory=dict)
    """When a lease ends by the last answer that was given; those of several clients may be read in another order."""
    handed_out: set[str] = attrs.field(factory=set)
    last_token: int = 0

    # -- what the service is seen to do ----------------------------------------------------------------------------

    def hand_out_ordered(self, fencing_token: int) -> None:
        grows = fencing_token > self.last_token
        self.findings.check("fencing_tokens_grow", grows, f"{fencing_token} after {self.last_token}")
        self.last_token = max(self.last_token, fencing_token)

    def hand_out_began(self, vm_id: str) -> None:
        """The VM is somebody's from here on, and dirty."""
        self.findings.check("no_vm_is_handed_out_twice", vm_id not in self.handed_out, vm_id)
        self.handed_out.add(vm_id)

    def lease_ended(self, lease_id: str) -> None:
        """By the word of the service; draining ones do not ask us."""
        self.ended.add(lease_id)
        if (held := self.held.get(lease_id)) is not None:
            self.findings.check("no_lease_ends_early", not self.binds(held), held)
            held.standing = Standing.OVER

    def vm_forgotten(self, vm_id: str) -> None:
        """The service has ended it, and nothing of it is left."""
        machine = self.machines.get(vm_id)
        if machine is None or machine.exit_report is None or _is_faulty(machine):
            return  # it never was one, or a fault ended it
        for held in self.held.values():
            if held.lease.vm_id == vm_id:
                promised = held.standing is Standing.PROMISED and trio.current_time() < held.expires_at - ROUNDING_S
                self.findings.check("no_lease_without_a_vm", not promised, held)

    # -- what clients read -----------------------------------------------------------------------------------------

    def granted(self, lease: Lease) -> None:
        if lease.lease_id in self.ended:
            return  # it had ended when its client read that it has it
        known = self.held.get(lease.lease_id)
        if known is None:
            for other in self.held.values():
                same_vm = other.lease.vm_id == lease.vm_id
                self.findings.check("no_vm_is_leased_twice", not same_vm, other)
                key, others = (lease.owner, lease.request.key), (other.lease.owner, other.lease.request.key)
                same_key = lease.request.key and key == others
                self.findings.check("a_key_leads_to_one_lease", not (same_key and self.binds(other)), other)
                name, others = (lease.owner, lease.request.name), (other.lease.owner, other.lease.request.name)
                same_name = lease.request.name and name == others
                self.findings.check("a_name_leads_to_one_lease", not (same_name and self.binds(other)), other)
            self.held[lease.lease_id] = Held(lease=lease, expires_at=lease.expires_at, recorded_until=lease.expires_at)
            return
        same = (known.lease.vm_id, known.lease.terms.fencing_token) == (lease.vm_id, lease.terms.fencing_token)
        self.findings.check("no_lease_changes", same, known)
        if lease.request.bound:
            self.renewed(lease)

    def joining(self, owner: Owner, key: str) -> None:
        """A bound call with the key of a lease sets that lease's time anew, whether its client reads that or not."""
        for held in self.held.values():
            if key and (held.lease.owner, held.lease.request.key) == (owner, key):
                held.renewals += 1

    def loose(self, lease: Lease) -> None:
        held = self.held.get(lease.lease_id)
        if held is not None and held.standing is Standing.PROMISED:
            held.standing = Standing.LOOSE

    def release_confirmed(self, lease: Lease) -> None:
        if (held := self.held.get(lease.lease_id)) is not None:
            held.released = True

    def all_loose(self) -> None:
        """The service was told to end everything."""
        for held in self.held.values():
            self.loose(held.lease)

    def renewing(self, lease: Lease) -> None:
        if (held := self.held.get(lease.lease_id)) is not None:
            held.renewals += 1

    def renewed(self, lease: Lease) -> None:
        if (held := self.held.get(lease.lease_id)) is not None:
            held.renewals = max(0, held.renewals - 1)
            told = self.told[lease.lease_id]
            if told != held.expires_at:  # else it was held anew, and that could not be recorded
                held.expires_at = held.recorded_until = told

    def renewal_refused(self, lease: Lease) -> None:
        if (held := self.held.get(lease.lease_id)) is not None:
            held.renewals = max(0, held.renewals - 1)

    # -- what is promised ------------------------------------------------------------------------------------------

    def binds(self, held: Held) -> bool:
        """Whether it must live now: promised, not expired, and its VM did not fail by itself, nor hang for long.

        A VM whose guest is silent while QEMU is there is not given up.
        """
        machine = self.machines[held.lease.vm_id]
        return (
            held.standing is Standing.PROMISED
            and not held.renewals
            and trio.current_time() < held.expires_at - ROUNDING_S
            and not _is_faulty(machine)
        )

    def is_binding(self, lease: Lease) -> bool:
        held = self.held.get(lease.lease_id)
        return held is not None and self.binds(held)

    def check_leases(self, leases: tuple[Lease, ...]) -> None:
        """What a run of the service that is at work says there is."""
        there = {lease.lease_id: lease for lease in leases}
        for lease_id, held in self.held.items():
            if held.released:
                refused = held.lease.vm_id in self.refused
                self.findings.check("a_released_lease_does_not_come_back", refused or lease_id not in there, held)
            elif self.binds(held):
                self.findings.check("no_lease_is_forgotten", lease_id in there, held)

    def check_restored(self, leases: tuple[Lease, ...]) -> None:
        """What a new run of the service begins with is what the one before it promised."""
        there = {lease.lease_id: lease for lease in leases}
        now = trio.current_time()
        for lease_id, held in self.held.items():
            if not self.binds(held):
                if (lease := there.get(lease_id)) is not None:
                    held.expires_at = lease.expires_at
                    held.recorded_until = None if lease.request.bound else lease.expires_at
                else:
                    self.loose(held.lease)
                held.renewals = 0
                continue
            found = there.get(lease_id)
            expected = held.recorded_until
            if held.lease.request.bound and expected is not None:
                expected = min(expected, now + RECONNECT_S)
            self.findings.check("leases_survive_the_service", found is not None, held)
            if found is not None:
                self.findings.check("no_lease_changes", _identity(found) == _identity(held.lease), held)
                unchanged = expected in (None, found.expires_at) or abs(expected - found.expires_at) < ROUNDING_S
                self.findings.check(
                    "leases_keep_their_time",
                    unchanged,
                    (held, expected, found.expires_at),
                )
                held.expires_at = found.expires_at


def _hangs_for_long(machine: Machine) -> bool:
    """Or did, until it was given up for that."""
    long_s = VIGIL.silence_limit_s - VIGIL.interval_s
    return machine.state.value.hung and trio.current_time() >= machine.hung_at + long_s


def _identity(lease: Lease) -> tuple[object, ...]:
    return (
        lease.lease_id,
        lease.vm_id,
        lease.owner,
        lease.request.key,
        lease.request.labels,
        lease.profile,
        lease.request.bound,
        lease.terms.fencing_token,
    )


def _is_faulty(machine: Machine) -> bool:
    """A fault ended it, its guest broke the protocol towards the service that has it, or it hangs for long."""
    died = machine.exit_report is not None and bool(machine.exit_report.stderr_tail)
    return died or machine.state.value.broken or _hangs_for_long(machine)
