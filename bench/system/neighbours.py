"""Two users against each other: the time of one user's calls while the other is at the maximum of a limit.

Also the memory that the other makes the service take. The quiet calls are the yardstick: same service, same
connections.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from bench.calls import Caller, open_caller
from bench.case import Bench, BenchError, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.noise import EXEC_PROFILE, FULL, KINDS, WAITING_PROFILE
from bench.service import Home, memory_bytes, profile, running, settled, until
from pool.rpc.listening import TIDY_AFTER_S
from vmpool.client import open_client

USER_CALLS: Final = ("acquire", "exec", "renew", "release")
ADMIN_CALLS: Final = ("status", "resize", "drain", "connect")
GROWTH: Final = "rss-growth"

_OTHER_UID, _GID = 61000, 61000
_LOUD_UIDS: Final = {kind: _OTHER_UID + number for number, kind in enumerate(KINDS, start=1)}
"""One uid for each kind: a user that was loud is refused for a while. No known host uses these uids, and the kernel
needs no account for them."""

_ADMINISTERED: Final = "other"
_REPEATS: Final = 5
_FULL_LIMIT_S: Final = 120.0
_READY_LIMIT_S: Final = 60.0
_POLL_S: Final = 0.01


def _needs_root() -> str:
    return "" if os.geteuid() == 0 else "only root can be two other users"


CASES: Final = (
    Case(
        name="neighbours/quiet", what="a user's calls and an administrator's, without another user", missing=_needs_root
    ),
    *(
        Case(
            name=f"neighbours/{kind}",
            what=f"the same while another user is at their maximum: {kind}",
            missing=_needs_root,
        )
        for kind in KINDS
    ),
)


@attrs.define(eq=False, kw_only=True)
class _Street:
    """The service and its well-behaved callers."""

    home: Home
    root: Caller
    other: Caller
    first_rss: int
    """Before any user was loud."""

    async def calls(self, turn: Turn) -> None:
        """Makes each call a few times, on open connections; "connect" opens its own."""
        client = self.other.client
        for _ in range(_REPEATS):
            await self._until_one_is_ready()
            with _timing(turn, "acquire"):
                vm = await client.acquire()
            with _timing(turn, "exec"):
                async with client.exec(vm.lease_id, ["true"]) as command:
                    await command.wait()
            with _timing(turn, "renew"):
                await client.renew(vm.lease_id, ttl_s=60.0)
            with _timing(turn, "release"):
                await client.release(vm.lease_id)
            with _timing(turn, "status"):
                await self.root.client.status()
            with _timing(turn, "resize"):
                await self.root.client.resize(_ADMINISTERED, 0)
            with _timing(turn, "drain"):
                await self.root.client.drain(_ADMINISTERED)
            await self.root.client.undrain(_ADMINISTERED)
            with _timing(turn, "connect"):
                async with open_client(self.home.socket_path) as fresh:
                    await fresh.status()

    async def while_loud(self, turn: Turn, *, kind: str) -> None:
        await self.at_rest()
        async with self._loud(kind):
            full = self._rss()
            await self.calls(turn)
            turn.record(max(full, self._rss()) - self.first_rss, part=GROWTH, unit=Unit.BYTES)
        await self.at_rest()
        await trio.sleep(2 * TIDY_AFTER_S)
        turn.record(self._rss() - self.first_rss, part="rss-after", unit=Unit.BYTES)

    async def quiet(self, turn: Turn) -> None:
        await self.at_rest()
        await self.calls(turn)

    async def at_rest(self) -> None:
        await until(self.home, self.root, settled)

    def _rss(self) -> int:
        return memory_bytes(self.home.pid())["Rss"]

    async def _until_one_is_ready(self) -> None:
        with trio.move_on_after(_READY_LIMIT_S):
            while True:
                status = await self.root.client.status()
                if next(each for each in status.profiles if each.name == "default").ready:
                    return
                await trio.sleep(_POLL_S)
        raise BenchError(f"no VM becomes ready within {_READY_LIMIT_S:g} s:\n{self.home.tail()}")

    @contextlib.asynccontextmanager
    async def _loud(self, kind: str) -> AsyncIterator[None]:
        """Keeps a loud user at their maximum within the block."""
        argv = [sys.executable, "-m", "bench.noise", kind, str(self.home.socket_path), str(_LOUD_UIDS[kind]), str(_GID)]
        with self.home.log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self.home.bench.checkout
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = None
            with trio.move_on_after(_FULL_LIMIT_S):
                said = await process.stdout.receive_some()
            if said != FULL:
                raise BenchError(f"{kind}: the maximum was not reached:\n{self.home.tail()}")
            yield
            if process.poll() is not None:
                raise BenchError(f"{kind}: the loud client ended too early:\n{self.home.tail()}")
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.stdout.aclose()
                process.kill()
                await process.wait()


@contextlib.contextmanager
def _timing(turn: Turn, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    turn.record(time.perf_counter() - began, part=part)


@contextlib.asynccontextmanager
async def _another_user(home: Home) -> AsyncIterator[Caller]:
    """A client's uid on a Unix socket is that of the moment when it connects."""
    async with open_caller(home.socket_path) as caller:
        os.setegid(_GID)
        os.seteuid(_OTHER_UID)
        try:
            await caller.client.status()
        finally:
            os.seteuid(0)
            os.setegid(0)
        yield caller


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    config = (
        f"[access]\nusers = {[_OTHER_UID, *_LOUD_UIDS.values()]}\nsocket_group = {_GID}\n"
        + profile(bench, size=2, producer="template")
        + profile(bench, name=EXEC_PROFILE, size=0, producer="template")
        + profile(bench, name=WAITING_PROFILE, size=1, max_vms=1, producer="template")
        + profile(bench, name=_ADMINISTERED, size=0, producer="template")
    )
    bench.home.chmod(0o711)
    async with running(bench, config) as (home, root):
        home.directory.chmod(0o711)
        async with _another_user(home) as other:
            await until(home, root, settled)
            street = _Street(home=home, root=root, other=other, first_rss=0)
            await street.quiet(Turn())
            street.first_rss = memory_bytes(home.pid())["Rss"]
            samplers: dict[str, Sampler] = {"neighbours/quiet": street.quiet}
            yield samplers | {f"neighbours/{kind}": partial(street.while_loud, kind=kind) for kind in KINDS}


EXPERIMENT: Final = Experiment(
    name="neighbours", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=20, quick_rounds=1, warm_up=0
)
