"""The successor's part: it goes on when the service before it has ended, and not before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from pool import takeover
from pool.client import ServiceUnavailableError
from pool.endpoint import EndpointError, lock_path, take_lock
from pool.takeover import take_over


class Predecessor:
    """Answers, or has its connection break as it does."""

    def __init__(self, *, breaks: bool) -> None:
        self.breaks = breaks
        self.asked = trio.Event()

    async def hand_over(self) -> None:
        self.asked.set()
        if self.breaks:
            raise ServiceUnavailableError(socket_path=Path("s.sock"), reason="the connection broke", remedy="-")

    @contextlib.asynccontextmanager
    async def connected(self, _path: Path) -> AsyncIterator[Predecessor]:
        yield self


@pytest.mark.parametrize("breaks", [False, True], ids=["answers", "breaks off"])
async def test_it_waits_for_the_end_of_a_service_that_hands_over(
    vm_home: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    predecessor = Predecessor(breaks=breaks)
    monkeypatch.setattr(takeover, "open_client", predecessor.connected)
    socket_path = vm_home / "s.sock"
    with contextlib.ExitStack() as lock:
        take_lock(lock_path(socket_path), lock)
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            async def takes_over() -> None:
                await take_over(socket_path)
                done.set()

            nursery.start_soon(takes_over)
            await predecessor.asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            lock.close()
            await done.wait()


async def test_it_says_so_if_that_does_not_end(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "open_client", Predecessor(breaks=False).connected)
    monkeypatch.setattr(takeover, "HAND_OVER_LIMIT_S", 0.0)
    socket_path = vm_home / "s.sock"
    with contextlib.ExitStack() as lock:
        take_lock(lock_path(socket_path), lock)
        with pytest.raises(EndpointError, match="did not end within 0 s of handing over"):
            await take_over(socket_path)


async def test_without_a_service_there_is_nothing_to_wait_for(vm_home: Path) -> None:
    await take_over(vm_home / "s.sock")
