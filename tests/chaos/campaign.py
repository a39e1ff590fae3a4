"""Clients and blows for a while, then quiet, and whether all is as it should be."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.chaos import plan
from tests.chaos.books import Books, ViolationError
from tests.chaos.client import ChaosClient
from tests.chaos.host import ChaosHost, log_entries
from tests.running import ServiceHome, service_home
from tests.templates import place_for_template
from vmpool.client import ServiceStatus, open_client

CLIENTS: Final = 6

QUIET_LIMIT_S: Final = 150.0
"""For leases that nobody knows of to end, and the pools to be full."""

CONFIG: Final = """
[profiles.direct]
size = 1
memory_mib = 256
accelerator = "tcg"
backoff_initial_s = 0.1
backoff_maximum_s = 1.0

[profiles.template]
size = 2
shells = 1
memory_mib = 256
accelerator = "tcg"
producer = "template"
template_directory = "{place}"
backoff_initial_s = 0.1
backoff_maximum_s = 1.0
"""


@attrs.frozen(kw_only=True)
class Report:
    seconds: float
    books: Books
    log: Counter[str]

    def lines(self) -> Iterator[str]:
        books = self.books
        yield f"{self.seconds:.0f} s, {books.done['cycles']} cycles, {books.starts} restarts, nothing found"
        for title, counts in (
            ("blows", Counter({blow.value: number for blow, number in books.blows.items()})),
            ("clients", books.done),
            ("leases that ended early", books.lost),
            ("services", self.log),
        ):
            yield f"{title}:"
            yield from (f"{number:8} {what}" for what, number in sorted(counts.items()))


@contextlib.contextmanager
def chaos_home(image_directory: Path) -> Iterator[ServiceHome]:
    with place_for_template() as place:
        config = CONFIG.format(place=place)
        with service_home(config, image_directory=image_directory) as home:
            yield home


async def run_chaos(home: ServiceHome, *, seconds: float, seed: int) -> Report:
    """Raises ViolationError, in groups, for the first thing that is not as it should be."""
    books = Books()
    host = ChaosHost(home=home, books=books, service=home.start())
    try:
        descriptors = await _until_quiet(host)
        await _blows(host, seconds=seconds, seed=seed)
        await _until_quiet(host, descriptors=descriptors)
        await host.stop()
    except BaseException:
        host.service.crash()  # its VMs are seen to by its home
        raise
    return Report(seconds=seconds, books=books, log=_judged(home.log))


async def _blows(host: ChaosHost, *, seconds: float, seed: int) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            client = ChaosClient(
                name=f"client-{number}",
                socket_path=host.service.socket_path,
                books=host.books,
                cycles=plan.cycles(seed, number),
                stop=stop,
            )
            nursery.start_soon(client.run)
        ends_at = trio.current_time() + seconds
        for step in itertools.takewhile(lambda _: trio.current_time() < ends_at, plan.steps(seed)):
            await trio.sleep(step.pause_s)
            await host.perform(step)
        stop.set()


async def _until_quiet(host: ChaosHost, *, descriptors: float = math.inf) -> int:
    """The pools are full, nobody has a VM, and the service has no more descriptors than that.

    Returns how many it has. Raises ViolationError if that does not come.
    """
    status = None
    with trio.move_on_after(QUIET_LIMIT_S):
        async with open_client(host.service.socket_path) as client:
            while True:
                status = await client.status()
                has = host.service.descriptors()
                if _is_quiet(status) and len(host.service.qemus()) == _vms(status) and has <= descriptors:
                    return has
                await trio.sleep(0.1)
    raise ViolationError(f"not quiet after {QUIET_LIMIT_S:g} s: {status}; open is {host.open_files()}")


def _is_quiet(status: ServiceStatus) -> bool:
    return not status.leases and all(
        profile.ready == profile.size
        and profile.producer.ready
        and profile.shells == (profile.name == "template")
        and not (profile.producing or profile.stopping or profile.handing_out or profile.stale)
        for profile in status.profiles
    )


def _vms(status: ServiceStatus) -> int:
    return sum(profile.ready + profile.shells for profile in status.profiles)


def _judged(log: Path) -> Counter[str]:
    """What the services said they did. Raises ViolationError for what only a bug makes them say."""
    counts: Counter[str] = Counter()
    for entry in log_entries(log):
        if entry["level"] in ("error", "critical") or "exception" in entry:
            raise ViolationError(f"in the log: {entry}")
        if entry["event"] == "adopting VMs of an earlier run":
            counts["idle VMs found"] += entry["idle"]
            counts["leases restored"] += entry["leased"]
        elif entry["event"] in ("VM lost", "ending an orphan", "a record cannot be used; its VM is ended"):
            counts[" ".join(filter(None, (entry["event"], entry.get("was"))))] += 1
    return counts
