"""A service in a thread of its own, for clients that are no trio programs."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import trio

from tests.unit.rpc.served import Served, serving

T = TypeVar("T")


class ServedBeside:
    """A service over the simulated machine, and its insides."""

    def __init__(self, served: Served, token: trio.lowlevel.TrioToken) -> None:
        self._served = served
        self._token = token
        self.path = served.path

    def ask(self, question: Callable[[Served], T]) -> T:
        """In the service's thread."""
        return trio.from_thread.run_sync(question, self._served, trio_token=self._token)

    def until(self, condition: Callable[[Served], bool]) -> None:
        """Waits for a state of the service."""
        trio.from_thread.run(self._served.until, lambda: condition(self._served), trio_token=self._token)

    def until_lost(self) -> None:
        """Nobody has a lease or waits for one, and all calls have ended."""
        self.until(lambda served: served.lost())


@contextlib.contextmanager
def serving_beside(directory: Path, **options: Any) -> Iterator[ServedBeside]:
    begun: queue.SimpleQueue[ServedBeside | BaseException] = queue.SimpleQueue()
    end: list[Callable[[], None]] = []

    async def main() -> None:
        stop = trio.Event()
        token = trio.lowlevel.current_trio_token()
        end.append(lambda: token.run_sync_soon(stop.set))
        async with serving(directory, **options) as served:
            begun.put(ServedBeside(served, token))
            await stop.wait()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failures.append(error)
            begun.put(error)

    thread = threading.Thread(target=run, name="service")
    thread.start()
    try:
        first = begun.get()
        if isinstance(first, BaseException):
            raise first
        yield first
    finally:
        end[0]()
        thread.join()
    if failures:
        raise failures[0]
