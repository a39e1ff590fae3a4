"""What a simulation found, and the trace that leads there."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

import attrs
import trio

from pool.ledger.effects import ConfirmRenewal, Effect, Grant, Tell
from pool.ledger.events import AdoptionRequested, Event
from pool.ledger.news import LeaseNews
from pool.ledger.records import Lease
from vmm.words.facts import VmHandedOut

TAIL: Final = 60
"""Lines of the trace that are shown with a finding."""


class ViolationError(AssertionError):
    """An invariant does not hold; `check` names it."""

    def __init__(self, *, check: str, detail: object, tail: Collection[str] = ()) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.tail = tuple(tail)


def said(what: Event | Effect) -> str:
    """In one line. What a guest drew from its generator is left out: a part of that is from the real host's."""
    match what:
        case VmHandedOut(vm_id=vm_id, timings=timings):
            return f"VmHandedOut(vm_id={vm_id!r}, timings={timings})"
        case Grant(request_id=request_id, lease=lease) | ConfirmRenewal(request_id=request_id, lease=lease):
            return f"{type(what).__name__}(request_id={request_id}, {brief(lease)})"
        case Tell(news=LeaseNews(lease=lease) as news):
            return f"LeaseNews({news.change.value}, {news.reason}, {news.detail!r}, {brief(lease)})"
        case AdoptionRequested(found=found):
            return f"AdoptionRequested({', '.join(f'{vm.vm_id}: {vm.lease and brief(vm.lease)}' for vm in found)})"
        case _:
            return str(what)


def brief(lease: Lease) -> str:
    return (
        f"{lease.lease_id} of {lease.owner.uid} {lease.request.key!r}: {lease.vm_id} until {lease.expires_at:.9f}, "
        f"token {lease.terms.fencing_token}{', bound' if lease.request.bound else ''}"
    )


@attrs.define(eq=False)
class Trace:
    """All that happened, in order: hashed, and the end of it kept."""

    listener: Callable[[str], None] | None = None
    lines: int = 0
    tail: deque[str] = attrs.field(factory=lambda: deque(maxlen=TAIL))
    _digest: hashlib._Hash = attrs.field(factory=hashlib.sha256)

    def add(self, who: str, what: object) -> None:
        line = f"{trio.current_time():.9f} {who}: {what}"
        self.lines += 1
        self.tail.append(line)
        self._digest.update(line.encode())
        if self.listener is not None:
            self.listener(line)

    def digest(self) -> str:
        return self._digest.hexdigest()


@attrs.define(eq=False, kw_only=True)
class Findings:
    """The first violation, if any. Nothing is raised where it is found: that would be one more fault of the service."""

    trace: Trace
    only: Collection[str] | None = None
    """The checks that count; None: all."""
    violation: ViolationError | None = None
    found: trio.Event = attrs.field(factory=trio.Event)
    checked: set[str] = attrs.field(factory=set)
    """Checks that were made at least once."""

    def check(self, name: str, holds: object, detail: object = "") -> None:
        """`detail` may be a function, for what takes long to say."""
        self.checked.add(name)
        if holds or self.violation is not None or (self.only is not None and name not in self.only):
            return
        said = detail() if callable(detail) else detail
        self.trace.add("VIOLATION", f"{name}: {said}")
        self.violation = ViolationError(check=name, detail=said, tail=self.trace.tail)
        self.found.set()
