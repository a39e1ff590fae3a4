"""Requests that wait for the coordinator's answer."""

from __future__ import annotations

import itertools

import attrs
import trio

from pool.ledger.effects import Refusal
from pool.ledger.records import Lease

Answer = Lease | Refusal | None
"""A lease, a refusal, or None: the request is done."""


class RefusedError(Exception):
    """The pool refused a request; `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@attrs.define(eq=False)
class Reply:
    """A one-shot answer: set by the coordinator, awaited by one request."""

    event: trio.Event = attrs.field(factory=trio.Event)
    value: Answer = None

    def result(self) -> Lease | None:
        """Raises RefusedError."""
        if isinstance(self.value, Refusal):
            raise RefusedError(self.value)
        return self.value


@attrs.define(eq=False, kw_only=True)
class OpenRequests:
    """The awaited replies, by request id.

    Their number is bounded elsewhere: the ledger limits waiting acquisitions, the edge the open calls of a user. A
    bound here would let waiting requests block releases and administration.
    """

    _replies: dict[int, Reply] = attrs.field(factory=dict, init=False)
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def open(self) -> tuple[int, Reply]:
        """A new request, which the caller must close."""
        request_id = next(self._ids)
        self._replies[request_id] = reply = Reply()
        return request_id, reply

    def close(self, request_id: int) -> None:
        del self._replies[request_id]

    def answer(self, request_id: int, value: Answer) -> bool:
        """Sets the reply. Returns whether the request is still open."""
        reply = self._replies.get(request_id)
        if reply is not None:
            reply.value = value
            reply.event.set()
        return reply is not None

    def __len__(self) -> int:
        return len(self._replies)
