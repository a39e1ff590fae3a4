"""Requests that wait for the coordinator's answer."""

from __future__ import annotations

import itertools
from typing import Final

import attrs
import trio

from pool.ledger.effects import Refusal
from pool.ledger.records import Lease

MAX_OPEN_REQUESTS: Final = 1000
"""Requests that wait for an answer at a time; what comes on top is refused at once."""

Answer = Lease | Refusal | None
"""A lease, a refusal, or "it is done"."""


class RefusedError(Exception):
    """The pool said no; `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class TooManyRequestsError(Exception):
    """More requests are open than the service keeps."""


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
    """The replies that are awaited, by request id."""

    maximum: int = MAX_OPEN_REQUESTS
    _replies: dict[int, Reply] = attrs.field(factory=dict, init=False)
    _ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def open(self) -> tuple[int, Reply]:
        """A new request; whoever opens it closes it. Raises TooManyRequestsError."""
        if len(self._replies) >= self.maximum:
            raise TooManyRequestsError(f"{self.maximum} requests are open already; try again later")
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
