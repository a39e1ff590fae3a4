"""What is open for the length of a block, or until it is closed: connections, held leases, running commands.

async with pool.vm() as vm: ...

vm = await pool.vm()      # in a notebook
...
await vm.aclose()
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from vmpool.client.endings import finish

R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


def internal(function: F) -> F:
    """Marks a method that is for the SDK's own code; the faces do without it."""
    return function


class Resource:
    """Something that was opened. `aclose` closes it, and may be called again; the block that opened it does so, too."""

    _ends: contextlib.AsyncExitStack | None = None

    async def aclose(self) -> None:
        """Closes it; goes on to the end if it is cancelled meanwhile."""
        if self._ends is not None:
            await finish(self._ends.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Opening(Generic[R_co]):
    """Opens something when a block is entered, or when it is awaited, once.

    What `begin` has done so far is undone if it fails or is cancelled: it leaves what is to be done at the end on the
    stack that it is given. The end may come in another task than the beginning, so nothing on the stack may be bound to
    one, as the scopes of `asyncio.timeout` and `TaskGroup` are.
    """

    def __init__(self, begin: Callable[[contextlib.AsyncExitStack], Awaitable[R_co]]) -> None:
        self._begin = begin
        self._ends = contextlib.AsyncExitStack()
        self._begun = False

    async def open(self) -> R_co:
        """Use `async with` or `await` in place of this."""
        if self._begun:
            raise RuntimeError("it was opened before, and is opened once; make another one")
        self._begun = True
        try:
            opened = await self._begin(self._ends)
        except BaseException:
            await self.aclose()
            raise
        if isinstance(opened, Resource):
            opened._ends = self._ends  # noqa: SLF001 - two sides of one thing
        return opened

    async def aclose(self) -> None:
        """Closes what was opened, if anything was."""
        await finish(self._ends.aclose())

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.open().__await__()

    async def __aenter__(self) -> R_co:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
