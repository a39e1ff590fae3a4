"""What callers know of the guests of their leases: processes and how far their output was read, files and what is in
them."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import attrs
import trio

from pool.ledger.records import Lease
from tests.simulation.findings import Findings

if TYPE_CHECKING:
    from tests.simulation.edge import Edge

LINE: Final = 8
"""Bytes of a line of the simulated program `lines`."""

LATE_S: Final = 0.001
"""A call ends as soon as its lease has ended, on a clock that stands still while anybody has something to do."""


@attrs.define(eq=False, kw_only=True)
class Started:
    """A detached process that its caller knows of."""

    process_id: int
    keep: int
    seen: int = 0
    """There was output up to here."""
    killed: bool = False
    """Somebody was about to: it may have ended."""


@attrs.define(eq=False, kw_only=True)
class GuestBooks:
    findings: Findings
    processes: defaultdict[str, list[Started]] = attrs.field(factory=lambda: defaultdict(list))
    """By VM."""
    files: dict[tuple[str, bytes], set[bytes | None]] = attrs.field(factory=dict)
    """By VM and path: what may be there. None: no file."""
    _ended: dict[str, float] = attrs.field(factory=dict)
    """When leases ended."""

    def lease_ended(self, lease_id: str) -> None:
        self._ended[lease_id] = trio.current_time()

    def check_calls(self, edge: Edge) -> None:
        """None goes on when its lease has ended."""
        ended_by = trio.current_time() - LATE_S
        for call in edge.running:
            ended = self._ended.get(call.lease_id, math.inf)
            late = max(ended, call.began_at) < ended_by
            self.findings.check("calls_end_with_their_leases", not late, (call.method, call.lease_id))

    # -- processes -------------------------------------------------------------------------------------------------

    def found(self, started: Started, *, end: int, kept_from: int) -> None:
        """The process, as its guest tells of it: as long as before, and all is kept that is to be kept."""
        grows = end >= started.seen
        self.findings.check("output_is_kept", grows and kept_from <= max(0, end - started.keep), (started, end))
        started.seen = max(started.seen, end)

    def output(self, started: Started, *, expected: int, kept_from: int, position: int, data: bytes) -> None:
        """A gap is what is not kept any more."""
        follows = position == expected or expected < position <= kept_from
        right = data == _lines(position, len(data))
        self.findings.check("output_is_kept", follows and right, (started, expected, kept_from, position, data))
        started.seen = max(started.seen, position + len(data))

    def missing(self, started: Started, *, binds: bool) -> None:
        """The guest says that it has no such process, or that it has ended."""
        self.findings.check("detached_processes_go_on", started.killed or not binds, started)

    def there(self, started: Started) -> None:
        self.findings.check("detached_processes_go_on", True)

    # -- files -----------------------------------------------------------------------------------------------------

    def writing(self, lease: Lease, path: bytes, data: bytes) -> None:
        self.files.setdefault((lease.vm_id, path), {None}).add(data)

    def written(self, lease: Lease, path: bytes, data: bytes) -> None:
        self.files[lease.vm_id, path] = {data}

    def read(self, lease: Lease, path: bytes, data: bytes | None, *, binds: bool) -> None:
        may_be = self.files.get((lease.vm_id, path), {None})
        self.findings.check("what_was_written_is_read", data in may_be or not binds, (lease.vm_id, path, data))
        if data in may_be:
            self.files[lease.vm_id, path] = {data}


def _lines(position: int, size: int) -> bytes:
    first, last = position // LINE, (position + size) // LINE
    text = b"".join(b"%07d\n" % number for number in range(first, last + 1))
    return text[position - first * LINE :][:size]
