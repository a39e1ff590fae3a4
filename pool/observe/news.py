"""The news log: one line for each change of a VM, lease or profile, with a limit on the lines of one kind.

Its source is the news that watchers get. A line is written a moment later, so as not to delay a pending reply. In each
window at most LINES lines of one kind are written; the number of further ones is logged at the end of the window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, assert_never

import attrs
import structlog
import trio

from pool.ledger.news import LeaseChange, LeaseNews, News, ProfileChange, ProfileNews, VmNews
from pool.ledger.reasons import EVICTIONS, LOSSES, REPLACEMENTS, StopReason
from pool.ledger.records import EndReason
from vmm.words.life import VmState

_log = structlog.get_logger("vmpool.news")

LINES: Final = 100
"""Of one kind, in WINDOW_S."""

WINDOW_S: Final = 10.0

LATER_S: Final = 0.02
"""A reply is sent within a few milliseconds."""

LEFT_OUT: Final = "more of these were left out"

_KINDS: Final[Mapping[StopReason, str]] = {
    **dict.fromkeys(EVICTIONS, "evicted"),
    **dict.fromkeys(REPLACEMENTS, "replaced"),
    **dict.fromkeys(LOSSES, "lost"),
    **dict.fromkeys((StopReason.WISH, StopReason.DEADLINE, StopReason.ABANDONED), "discarded"),
    StopReason.SHUTDOWN: "stopped",
    StopReason.HANDED_OVER: "handed over",
}
"""The events of VMs whose end is not logged with a lease."""

_ENDS: Final[Mapping[EndReason, str]] = {
    EndReason.RELEASED: "released",
    EndReason.EXPIRED: "expired",
    EndReason.VM_LOST: "lost",
    EndReason.ABANDONED: "abandoned",
    EndReason.SHUTDOWN: "stopped",
    EndReason.GIVEN_AWAY: "given away",
}

_PROFILES: Final[Mapping[ProfileChange, str]] = {
    ProfileChange.RESIZED: "resized",
    ProfileChange.DRAINED: "drained",
    ProfileChange.UNDRAINED: "undrained",
    ProfileChange.GENERATION: "generation",
    ProfileChange.CIRCUIT: "circuit",
    ProfileChange.HOST_MEMORY: "memory pressure",
}


def kind_of(news: News) -> str | None:
    """The event of the news' line; None if no line is written."""
    match news:
        case VmNews():
            return _kind_of_vm(news)
        case LeaseNews(change=LeaseChange.ENDED):
            assert news.reason is not None
            return _ENDS[news.reason]
        case LeaseNews(change=LeaseChange.GRANTED | LeaseChange.RESTORED as change):
            return str(change.value)
        case LeaseNews():
            return None  # renewals are routine; the VM's actor logs silent guests, with more details
        case ProfileNews():
            return _PROFILES[news.change]
        case _:
            assert_never(news)


def _kind_of_vm(news: VmNews) -> str | None:
    if news.state is VmState.READY:
        return "adopted" if news.was is VmState.ADOPTING else "ready"
    if news.reason is None:
        return None
    if news.was is VmState.LEASED and news.reason is not StopReason.HANDED_OVER:
        return None  # logged as the end of its lease
    return _KINDS.get(news.reason)


def fields_of(news: News, *, now: float) -> dict[str, object]:
    """The fields that are not empty; times are in seconds."""
    fields: dict[str, object]
    match news:
        case VmNews():
            fields = {
                "vm": news.vm_id,
                "profile": news.profile,
                "was": news.was.value if news.reason and news.was else None,
                "made_by": news.made_by.value if news.state is VmState.READY else None,
                "production_s": _seconds(news.production_s),
                "reason": news.reason.value if news.reason else None,
                "detail": news.detail,
            }
        case LeaseNews(lease=lease):
            fields = {
                "lease": lease.lease_id,
                "vm": lease.vm_id,
                "profile": lease.profile,
                "uid": lease.owner.uid,
                "reason": news.reason.value if news.reason else None,
                "detail": news.detail,
            }
            fields |= _of_grant(news, now=now) if news.reason is None else {"held_s": _seconds(now - lease.granted_at)}
        case ProfileNews():
            fields = {"profile": news.profile, "detail": news.detail}
        case _:
            assert_never(news)
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _of_grant(news: LeaseNews, *, now: float) -> dict[str, object]:
    lease = news.lease
    fields: dict[str, object] = {"expires_in_s": _seconds(lease.expires_at - now)}
    if news.change is LeaseChange.GRANTED:
        fields |= {
            "made_by": lease.made_by.value,
            "was_ready": lease.terms.was_ready,
            "queued_s": _seconds(lease.terms.queued_s),
            "total_s": _seconds(lease.terms.queued_s + lease.timings.total_s),
        }
    return fields


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == math.inf else round(seconds, 6)


@attrs.define(eq=False)
class _Window:
    ends_at: float
    lines: int = 0
    left_out: int = 0


@attrs.define(eq=False)
class NewsLog:
    """`tell` it the news, and `run` it. It never waits, and remembers a bounded number of lines."""

    _pending: deque[tuple[str, Callable[[], Mapping[str, Any]]]] = attrs.field(factory=deque, init=False)
    """Event and fields. The fields are made when the line is written: `tell` runs while a caller waits for a reply."""
    _windows: dict[str, _Window] = attrs.field(factory=dict, init=False)
    """By kind."""
    _something: trio.Event = attrs.field(factory=trio.Event, init=False)

    def tell(self, news: News) -> None:
        kind = kind_of(news)
        if kind is None:
            return
        now = trio.current_time()
        window = self._windows.get(kind)
        if window is None or now >= window.ends_at:
            self._close(kind)
            window = self._windows[kind] = _Window(now + WINDOW_S)
        if window.lines < LINES:
            window.lines += 1
            self._pending.append((kind, partial(fields_of, news, now=now)))
        else:
            window.left_out += 1
        self._something.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes lines until cancelled; then writes the remaining ones at once."""
        task_status.started()
        try:
            while True:
                with trio.move_on_at(self._next_end()):
                    await self._something.wait()
                self._something = trio.Event()
                if self._pending:
                    await trio.sleep(LATER_S)
                self._close_over(now=trio.current_time())
                while self._pending:
                    self._write()
                    await trio.lowlevel.checkpoint()
        finally:
            self._close_over(now=math.inf)
            while self._pending:
                self._write()

    def _write(self) -> None:
        kind, fields = self._pending.popleft()
        _log.info(kind, **fields())

    def _next_end(self) -> float:
        """When the next window with left-out lines ends."""
        return min((window.ends_at for window in self._windows.values() if window.left_out), default=math.inf)

    def _close_over(self, *, now: float) -> None:
        for kind in [kind for kind, window in self._windows.items() if now >= window.ends_at]:
            self._close(kind)

    def _close(self, kind: str) -> None:
        window = self._windows.pop(kind, None)
        if window is not None and window.left_out:
            fields = {"kind": kind, "count": window.left_out, "within_s": WINDOW_S}
            self._pending.append((LEFT_OUT, lambda: fields))
