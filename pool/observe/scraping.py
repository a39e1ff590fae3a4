"""The HTTP server that metrics are scraped from: /metrics, and nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import attrs
import h11
import structlog
import trio

_log: Final = structlog.get_logger("vmpool.metrics")

MAX_CLIENTS: Final = 8
"""At a time; others wait in the listener's queue."""

CLIENT_LIMIT_S: Final = 10.0
"""For a request and its answer."""

MAX_REQUEST_BYTES: Final = 16 * 1024
"""Of the request's line and headers."""

_READ_BYTES: Final = 4096

_METRICS: Final = re.compile(rb"(?:(?i:https?)://[^/?]*)?/metrics(?:\?.*)?")
"""Any host, if a client names one, as it does to a proxy."""


@attrs.frozen(kw_only=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    allow: str = ""


@attrs.define(eq=False, kw_only=True)
class ScrapeServer:
    """One request per connection. `listener` stays open: it is its opener's."""

    listener: socket.socket
    text: Callable[[], Awaitable[bytes]]
    content_type: str
    _free: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(MAX_CLIENTS), init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns."""
        listener = trio.socket.from_stdlib_socket(self.listener.dup())
        with listener:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await self._free.acquire()
                    try:
                        client, _ = await listener.accept()
                    except BaseException:
                        self._free.release()
                        raise
                    nursery.start_soon(self._serve, trio.SocketStream(client))

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(CLIENT_LIMIT_S):
                async with stream:
                    await self._answer(stream)
        except (trio.BrokenResourceError, OSError):
            pass  # it went away
        except Exception:  # noqa: BLE001 - one client's failure is not the others'
            _log.exception("a scrape failed")
        finally:
            self._free.release()

    async def _answer(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        request = None
        try:
            request = await _request(http, stream)
            if request is None:
                return
            answer = await self._answer_to(request)
        except h11.RemoteProtocolError as error:
            answer = _Answer(status=HTTPStatus(error.error_status_hint), body=f"{error}\n".encode())
        head = h11.Response(
            status_code=answer.status.value,
            reason=answer.status.phrase.encode(),
            headers=[
                ("Content-Type", answer.content_type),
                ("Content-Length", str(len(answer.body))),
                ("Connection", "close"),
                *((("Allow", answer.allow),) if answer.allow else ()),
            ],
        )
        # The head says how long the body would be; to HEAD none is sent, and h11 refuses to.
        body = b"" if request is not None and request.method == b"HEAD" else answer.body
        written = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
        await stream.send_all(b"".join(piece or b"" for piece in written))
        await stream.send_eof()

    async def _answer_to(self, request: h11.Request) -> _Answer:
        if not _METRICS.fullmatch(request.target):
            return _Answer(status=HTTPStatus.NOT_FOUND, body=b"not found; use /metrics\n")
        if request.method not in {b"GET", b"HEAD"}:
            return _Answer(
                status=HTTPStatus.METHOD_NOT_ALLOWED, body=b"method not allowed; use GET or HEAD\n", allow="GET, HEAD"
            )
        return _Answer(status=HTTPStatus.OK, body=await self.text(), content_type=self.content_type)


async def _request(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """None: the client went away before it had asked. Raises h11.RemoteProtocolError."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None
