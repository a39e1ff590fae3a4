"""The VMs of one MCP client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from vmpool.aio import Forward, Opening, Pool, Vm
from vmpool.client.errors import ClientError

LABELS: Final = {"made-by": "vmpool-mcp"}
"""By which an operator tells these leases from others."""


class NoSuchVmError(Exception):
    """There is no VM of that name."""


class TooManyVmsError(Exception):
    """The client has as many VMs as it may have."""


@attrs.define(eq=False)
class Kept:
    """A VM, and which of its ports are open on this host, by port."""

    vm: Vm
    forwards: dict[int, Forward] = attrs.field(factory=dict)

    async def aclose(self) -> None:
        """Ends them all, the VM last."""
        for forward in self.forwards.values():
            await forward.aclose()
        self.forwards.clear()
        with contextlib.suppress(ClientError):  # its lease has ended already, or will with the connection
            await self.vm.aclose()


@attrs.define(eq=False)
class Machines:
    """Leases VMs, at most `most` at a time. `aclose` ends them all; so does the end of this process.

    The service is sought when the first VM is wanted, so that a client can list the tools without one.
    """

    open_pool: Callable[[], Opening[Pool]]
    profile: str
    most: int
    _opening: asyncio.Task[Pool] | None = attrs.field(default=None, init=False)
    _coming: int = attrs.field(default=0, init=False)
    _kept: dict[str, Kept] = attrs.field(factory=dict, init=False)

    def begin(self) -> None:
        """Begins to open the pool: one of its own takes a while to start."""
        self._opening = asyncio.ensure_future(self.open_pool().open())

    async def create(
        self,
        *,
        profile: str,
        name: str,
        environment: Mapping[str, str],
        vcpus: int | None,
        memory_mib: int | None,
        timeout: float,
    ) -> tuple[str, Kept]:
        """A VM more, and what it is called. Raises TooManyVmsError, and what `Pool.vm` does. If cancelled, there is
        none.
        """
        if len(self._kept) + self._coming >= self.most:
            raise TooManyVmsError(f"there may be {self.most} at a time: end one with end_vm")
        self._coming += 1
        try:
            pool = await self._pool()
            vm = await pool.vm(
                profile or self.profile,
                name=name,
                labels=LABELS,
                environment=environment,
                vcpus=vcpus,
                memory_mib=memory_mib,
                timeout=timeout,
            )
        finally:
            self._coming -= 1
        kept = Kept(vm)
        self._kept[name or vm.vm_id] = kept
        return name or vm.vm_id, kept

    def named(self, name: str) -> Kept:
        """The VM of that name; without a name the only one. Raises NoSuchVmError."""
        if name in self._kept:
            return self._kept[name]
        if not name and len(self._kept) == 1:
            (only,) = self._kept.values()
            return only
        if not self._kept:
            raise NoSuchVmError("there is no VM: create one with create_vm")
        what = f"there is no VM {name!r:.80}" if name else "there are several VMs, so one must be named as `vm`"
        raise NoSuchVmError(f"{what}; there are: {', '.join(self._kept)}")

    def all(self) -> Mapping[str, Kept]:
        """By name."""
        return self._kept

    async def end(self, name: str) -> str:
        """Ends one, and returns its name. Raises NoSuchVmError."""
        kept = self.named(name)
        (name,) = (other for other, value in self._kept.items() if value is kept)
        del self._kept[name]
        await kept.aclose()
        return name

    async def aclose(self) -> None:
        """Ends all VMs, and closes the pool."""
        for name in list(self._kept):
            await self.end(name)
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()  # nothing if it is open
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().aclose()

    async def _pool(self) -> Pool:
        if self._opening is None:
            self.begin()
        assert self._opening is not None
        opening = self._opening
        try:
            return await asyncio.shield(opening)  # it goes on if the call that waits for it is cancelled
        finally:
            failed = opening.done() and (opening.cancelled() or opening.exception() is not None)
            if failed and self._opening is opening:
                self._opening = None  # the next call tries anew: a service may have been started meanwhile
