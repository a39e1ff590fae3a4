"""The metrics of a service as text, for scrapes and for `vmpool metrics`."""

from __future__ import annotations

import importlib
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from pool.ledger.records import Lease
from pool.ledger.views import MemoryView, ProfileView
from pool.observe.measures import Measures

if TYPE_CHECKING:
    from pool.observe.scraping import ScrapeServer


class Measured(Protocol):
    """The coordinator. Nothing here waits."""

    measures: Measures

    def views(self) -> tuple[ProfileView, ...]: ...

    def waiting(self) -> int: ...

    def leases(self) -> tuple[Lease, ...]: ...

    def memory(self) -> MemoryView: ...


@attrs.define(eq=False, kw_only=True)
class Metrics:
    """Collects the metrics on request. The callables must not wait."""

    version: str
    pool: Measured
    available_mib: Callable[[], float | None]
    """Of the host's memory."""
    restarts: Callable[[], Mapping[str, int]]
    """By child of a supervisor."""
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Of all who ask one is written for in a round of the scheduler, as with watchers: it takes milliseconds in all."""

    async def text(self) -> bytes:
        """In Prometheus' text format, of one moment. Gives others a turn between the families."""
        exposition = await trio.to_thread.run_sync(_exposition)
        async with self._turn:
            return await self._written(exposition)

    async def _written(self, exposition: Any) -> bytes:
        moment = exposition.Moment(
            version=self.version,
            views=self.pool.views(),
            waiting=self.pool.waiting(),
            leases=Counter(lease.profile for lease in self.pool.leases()),
            memory=self.pool.memory(),
            available_mib=self.available_mib(),
            restarts=self.restarts(),
        )
        written = []
        for piece in exposition.pieces(self.pool.measures, moment):
            written.append(piece)
            await trio.lowlevel.checkpoint()
        return b"".join(written)


async def open_scrapes(metrics: Metrics, listener: socket.socket) -> ScrapeServer:
    """A server of the metrics; the caller closes the listener."""
    from pool.observe.scraping import ScrapeServer  # noqa: PLC0415 - only if metrics are served

    content_type = (await trio.to_thread.run_sync(_exposition)).CONTENT_TYPE
    return ScrapeServer(listener=listener, text=metrics.text, content_type=content_type)


def _exposition() -> Any:
    """Call this in a thread: the import is slow, and not every service needs it."""
    return importlib.import_module("pool.observe.exposition")
