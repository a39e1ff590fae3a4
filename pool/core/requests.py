"""Requests that wait for the coordinator's answer."""

from __future__ import annotations

import itertools

import attrs
import trio

from pool.ledger.effects import Refusal
from pool.ledger.records import Lease

Answer = Lease | Refusal | None
"""A lease, a refusal, or "it is done"."""


class RefusedError(Exception):
    """The pool said no; `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@attrs.define(eq=False)
class Reply:
    """A one-shot answer. Set by the coordinator, awaited by one request; no await lies between test and set."""

    event: trio.Event = attrs.field(factory=trio.Event)
    value: Answer = None

    def result(self) -> Lease | None:
        """Raises RefusedError."""
        if isinstance(self.value, Refusal):
            raise RefusedError(self.value)
        return self.value


@attrs.define(eq=False, kw_only=True)
class OpenRequests:
    """The replies that are awaited, by request id.

    How many there are is bounded where they come from: the ledger says how many acquisitions wait, the edge how many
    calls a user has open. A bound here would let those who wait keep others from releases and administration.
    """

    _replies: dict[int, Reply] = attrs.field(factory=dict, init=False)
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def open(self) -> tuple[int, Reply]:
        """A new request; whoever opens it closes it."""
        request_id = next(self._ids)
        self._replies[request_id] = reply = Reply()
        return request_id, reply

    def close(self, request_id: int) -> None:
        del self._replies[request_id]

    def answer(self, request_id: int, value: Answer) -> bool:
        """Whether there is still somebody to answer."""
        reply = self._replies.get(request_id)
        if reply is not None:
            reply.value = value
            reply.event.set()
        return reply is not None

    def __len__(self) -> int:
        return len(self._replies)
