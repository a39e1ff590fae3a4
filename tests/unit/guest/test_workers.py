"""The processes that do what is asked of a guest's files: few, and gone when they should be."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import psutil
import trio

from tests.agents import LocalAgent, Narrow
from tests.files import raw, refused
from tests.waiting import until
from vmm.guest.client import AgentClient


def descriptors(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def workers_of(agent: LocalAgent) -> list[psutil.Process]:
    return psutil.Process(agent.process.pid).children()


async def test_one_worker_does_one_request_after_another(client: AgentClient, local_agent: LocalAgent) -> None:
    for _ in range(5):
        await client.files.stat(b"/")
    [worker] = workers_of(local_agent)
    with refused(errno.ENOENT):
        await client.files.stat(b"/nowhere")
    assert workers_of(local_agent) == [worker], "an error does not cost it its life"


async def test_requests_at_once_have_a_worker_each_and_few_stay(client: AgentClient, local_agent: LocalAgent) -> None:
    readers = [await client.files.read(b"/proc/self/status") for _ in range(9)]
    assert len(workers_of(local_agent)) >= 1
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.files.stat, b"/")
    for reader in readers:
        await reader.aclose()

    async def few_are_left() -> bool:
        return len(workers_of(local_agent)) <= 4

    await until(few_are_left)


async def test_a_worker_has_no_descriptor_of_the_agent(client: AgentClient, local_agent: LocalAgent) -> None:
    watch = await client.files.watch(b"/tmp")
    [worker] = workers_of(local_agent)
    kept = descriptors(worker.pid)
    assert sum("eventpoll" in name for name in descriptors(local_agent.process.pid)) == 2
    assert not any("eventpoll" in name for name in kept)
    assert sum("inotify" in name for name in kept) == 1
    assert len(kept) == 6, kept
    await watch.aclose()


async def test_a_worker_that_is_killed_is_an_error_and_no_end(
    client: AgentClient, local_agent: LocalAgent, place: Path
) -> None:
    (place / "file").write_bytes(bytes(2**22))
    for source in (
        await client.files.watch(raw(place)),
        await client.files.read(raw(place / "file"), room=Narrow()),
        await client.files.read_tree(raw(place), room=Narrow()),
    ):
        for worker in workers_of(local_agent):
            worker.kill()
        with refused(errno.EIO):
            while await source.receive():
                pass
        await source.aclose()
    await client.files.stat(b"/")


async def test_closing_ends_the_worker_even_if_it_is_stopped(client: AgentClient, local_agent: LocalAgent) -> None:
    watch = await client.files.watch(b"/tmp")
    [worker] = workers_of(local_agent)
    worker.send_signal(signal.SIGSTOP)
    await watch.aclose()

    async def it_has_ended() -> bool:
        return not worker.is_running()

    await until(it_has_ended)
