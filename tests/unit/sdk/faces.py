"""The three faces of the SDK, so that one scenario, written once, is played with each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import trio

import vmpool
import vmpool.aio
import vmpool.sync

T = TypeVar("T")

Play = Callable[[Callable[[Any], Awaitable[T]]], T]
"""Runs a scenario, which gets a face, to its end."""


def with_trio(scenario: Callable[[Any], Awaitable[T]]) -> T:
    return trio.run(scenario, vmpool)


def with_asyncio(scenario: Callable[[Any], Awaitable[T]]) -> T:
    async def main() -> T:
        return await scenario(vmpool.aio)

    return asyncio.run(main())


def with_threads(scenario: Callable[[Any], Awaitable[T]]) -> T:
    """The blocking face, spelled with await; nothing is ever waited for that way."""
    coroutine: Any = scenario(_Spelled(vmpool.sync))
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("the scenario waited for something that is not the SDK's")


FACES: dict[str, Play[Any]] = {"trio": with_trio, "asyncio": with_asyncio, "threads": with_threads}


Job = Callable[[Any, Any, int], Awaitable[T]]
"""Gets a face, a Pool of it, and its number."""


def at_once_with_trio(job: Job[T], path: Path, jobs: int) -> list[T]:
    """Runs jobs at the same time on one connection; returns what they return, in order."""

    async def main(face: Any) -> list[T]:
        results: dict[int, T] = {}

        async def one(pool: Any, number: int) -> None:
            results[number] = await job(face, pool, number)

        async with face.connect(path) as pool, trio.open_nursery() as nursery:
            for number in range(jobs):
                nursery.start_soon(one, pool, number)
        return [results[number] for number in range(jobs)]

    return with_trio(main)


def at_once_with_asyncio(job: Job[T], path: Path, jobs: int) -> list[T]:
    """As `at_once_with_trio`."""

    async def main(face: Any) -> list[T]:
        async with face.connect(path) as pool, asyncio.TaskGroup() as group:
            tasks = [group.create_task(_coroutine(job(face, pool, number))) for number in range(jobs)]
        return [task.result() for task in tasks]

    return with_asyncio(main)


def at_once_with_threads(job: Job[T], path: Path, jobs: int) -> list[T]:
    """As `at_once_with_trio`."""
    with vmpool.sync.connect(path) as pool, ThreadPoolExecutor(jobs) as threads:
        return list(
            threads.map(
                lambda number: with_threads(lambda face: job(face, _Spelled(pool), number)),
                range(jobs),
            )
        )


AT_ONCE: dict[str, Callable[[Job[Any], Path, int], list[Any]]] = {
    "trio": at_once_with_trio,
    "asyncio": at_once_with_asyncio,
    "threads": at_once_with_threads,
}


async def in_thread(face: Any, function: Callable[[Any], T], argument: Any) -> T:
    """Blocking code of a test, beside the loop that serves it."""
    if face is vmpool:
        return await trio.to_thread.run_sync(function, argument)
    if face is vmpool.aio:
        return await asyncio.to_thread(function, argument)
    return function(argument)


async def _coroutine(awaited: Awaitable[T]) -> T:
    return await awaited


class _Spelled:
    """A blocking object: calls are made at once, their results can be awaited, entered and iterated as async ones."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, {"aclose": "close"}.get(name, name))
        if inspect.ismethod(value) or inspect.isfunction(value):
            return lambda *args, **kwargs: _answered(value(*args, **kwargs))
        return _spelled(value)

    def __await__(self) -> Generator[Any, None, Any]:
        return self
        yield  # type: ignore[unreachable]  # makes it a generator

    async def __aenter__(self) -> Any:
        return _spelled(self._thing.__enter__())

    async def __aexit__(self, *error: object) -> Any:
        return self._thing.__exit__(*error)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            return _spelled(next(self._thing))
        except StopIteration:
            raise StopAsyncIteration from None

    def __str__(self) -> str:
        return str(self._thing)


class _Answer:
    """What a call returned; await gives it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        return self._value
        yield  # type: ignore[unreachable]  # idem


def _spelled(value: Any) -> Any:
    return _Spelled(value) if hasattr(value, "_core") or hasattr(value, "__next__") else value


def _answered(value: Any) -> Any:
    spelled = _spelled(value)
    return spelled if isinstance(spelled, _Spelled) else _Answer(spelled)
