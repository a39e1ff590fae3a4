"""A service in a thread of its own, for clients that are no trio programs."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import outcome
import trio
import trio.testing

from tests.unit.rpc.served import Served, serving
from vmm.simulated.machine import Machine

T = TypeVar("T")

SETTLED_S: Final = 0.002
"""A service that has done nothing for so long waits for somebody: what is simulated takes no time."""


@attrs.frozen(kw_only=True)
class Held:
    """What clients have of a service."""

    leases: tuple[str, ...] = ()
    processes: tuple[tuple[str, ...], ...] = ()
    """Programs that run in leased VMs."""
    listeners: int = 0
    """Addresses of leased VMs where somebody listens."""
    calls: int = 0
    streams: int = 0
    """For which there is room."""
    room: int = 0
    """Bytes of memory that are taken for them."""


class ServedBeside:
    """A service over the simulated machine, and its insides."""

    def __init__(self, served: Served, token: trio.lowlevel.TrioToken) -> None:
        self._served = served
        self._token = token
        self.path = served.path

    def ask(self, question: Callable[[Served], T]) -> T:
        """In the service's thread; waits, in whatever thread, for the answer."""

        async def answer() -> T:
            return question(self._served)

        return self._in_service(answer)

    def until(self, condition: Callable[[Served], bool]) -> None:
        """Waits for a state of the service; fails rather than hang."""
        self._in_service(lambda: self._served.until(lambda: condition(self._served)))

    def _in_service(self, function: Callable[[], Awaitable[T]]) -> T:
        answers: queue.SimpleQueue[outcome.Outcome[T]] = queue.SimpleQueue()

        async def run() -> None:
            answers.put(await outcome.acapture(function))

        self._token.run_sync_soon(self._served.nursery.start_soon, run)
        return answers.get().unwrap()

    def until_held(self, held: Held) -> None:
        """Waits until clients have this and no more."""
        try:
            self.until(lambda served: held_of(served) == held)
        except trio.TooSlowError:
            raise AssertionError(self.held()) from None

    def held(self) -> Held:
        return self.ask(held_of)

    def machine(self, lease_id: str) -> Machine:
        """Belongs to the service's thread."""
        return self.ask(lambda served: served.machine(lease_id))

    def settle(self) -> None:
        """Waits until the service has done all that it can without its clients."""
        self._in_service(lambda: trio.testing.wait_all_tasks_blocked(SETTLED_S))

    def break_connections(self) -> None:
        """As the end of the service does."""

        def abort(served: Served) -> None:
            for connection in tuple(served.server._server.connections):
                connection.transport.abort()

        self.ask(abort)

    def until_lost(self) -> None:
        """Nobody has a lease or waits for one, and all calls have ended."""
        self.until(lambda served: served.lost())


def held_of(served: Served) -> Held:
    leases = tuple(lease.lease_id for lease in served.coordinator.leases())
    machines = [served.machine(lease_id) for lease_id in leases]
    running = [command for machine in machines for command in machine.commands.values()]
    running += [process.running for machine in machines for process in machine.detached.values()]
    users = served.server._server.users._known.values()
    return Held(
        leases=leases,
        processes=tuple(tuple(program.spec.argv) for program in running if program.exit is None),
        listeners=sum(len(machine.network._listeners) for machine in machines),
        calls=served.server.statistics().calls,
        streams=sum(user.output.streams for user in users),
        room=sum(user.output.taken for user in users),
    )


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
