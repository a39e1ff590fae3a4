"""The live view as a test has it: without a terminal, fed by a service, driven by keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio
from textual.pilot import Pilot

from pool.cli.top.app import Do, TopApp
from pool.cli.top.board import Board
from pool.cli.top.feed import Feed
from vmpool.wire.crossing import open_loop

LIMIT_S = 20.0


@attrs.define(eq=False, kw_only=True)
class Live:
    board: Board
    app: TopApp
    pilot: Pilot[None]
    limit_s: float

    def text(self) -> str:
        """The screen, as its user reads it."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what is shown; fails with what is."""
        give_up_at = trio.current_time() + self.limit_s
        while not condition():
            assert trio.current_time() < give_up_at, f"in vain:\n{self.text()}"
            await self.pilot.pause()

    async def until_shown(self, *words: str) -> None:
        """Until each is on the screen."""
        await self.until(lambda: all(word in self.text() for word in words))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


async def live(
    socket_path: Path,
    scenario: Callable[[Live], Awaitable[None]],
    *,
    size: tuple[int, int] = (120, 36),
    limit_s: float = LIMIT_S,
) -> None:
    """Runs a scenario, which is asyncio code, in front of the view."""
    board = Board()
    feed = Feed(socket_path=socket_path, board=board)
    async with open_loop() as loop, trio.open_nursery() as nursery:

        async def ask(do: Do) -> Any:
            return await loop.in_trio(feed.ask, do)

        app = TopApp(board, ask=ask)

        async def run() -> None:
            async with app.run_test(size=size, notifications=True) as pilot:
                await scenario(Live(board=board, app=app, pilot=pilot, limit_s=limit_s))

        nursery.start_soon(feed.run)
        await loop.run(run)
        nursery.cancel_scope.cancel()
