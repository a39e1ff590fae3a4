"""Keeps a board up to date: watches the service, and connects again when it restarts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from actors.errors import describe
from pool.cli.top.board import Board
from vmpool.client import Client, ClientError, ServiceUnavailableError, open_client

T = TypeVar("T")

RETRY_S: Final = 1.0
"""Between attempts to reach a service that is not there."""

STATUS_PAUSE_S: Final = 0.25
"""Between two questions for the counts while something happens."""

STATUS_IDLE_S: Final = 5.0
"""While nothing does."""


@attrs.define(eq=False, kw_only=True)
class Feed:
    socket_path: Path
    board: Board
    _client: Client | None = attrs.field(default=None, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """Runs until cancelled; the board shows when the service goes away or refuses."""
        while True:
            reason = "the service ended the watch"
            try:
                await self._follow()
            except* ClientError as errors:
                reason = describe(errors)
            self.board.lose(reason, at=_time_of_day())
            await trio.sleep(RETRY_S)

    async def ask(self, do: Callable[[Client], Awaitable[T]]) -> T:
        """Asks for something over the same connection. Raises ClientError."""
        if self._client is None:
            raise ServiceUnavailableError(
                socket_path=self.socket_path,
                reason="no connection to the service",
                remedy="try again when it is connected",
            )
        return await do(self._client)

    async def _follow(self) -> None:
        async with open_client(self.socket_path) as client:
            self._client = client
            try:
                async with client.watch() as changes, trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_counts, client)
                    async for change in changes:
                        self.board.change(change, now=trio.current_time(), at=_time_of_day())
                        self._news.set()
                    nursery.cancel_scope.cancel(reason="the watch has ended")
            finally:
                self._client = None

    async def _keep_counts(self, client: Client) -> None:
        while True:
            self.board.status(await client.status(), now=trio.current_time())
            with trio.move_on_after(STATUS_IDLE_S):
                await self._news.wait()
            self._news = trio.Event()
            await trio.sleep(STATUS_PAUSE_S)


def _time_of_day() -> dt.datetime:
    return dt.datetime.now().astimezone()
