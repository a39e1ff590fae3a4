"""The connection from a running QEMU to its guest's agent, of any kind."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

import trio

from vmm.contract import Agent, Command, GuestFiles, GuestPorts, GuestProcesses
from vmm.errors import AgentProtocolError, AgentUnreachableError, QmpError, VmExitedError
from vmm.guest.client import AgentClient
from vmm.guest.noop import NoopAgent
from vmm.guest.qga.client import QgaClient
from vmm.qemu.instance import Instance
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.machines import AgentKind
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage

_ALIVE: Final = frozenset({"running", "paused"})
"""The answers of `query-status` for a guest that lives."""


class ConnectedAgent(Agent, Protocol):
    """An agent with the connection to it."""

    async def aclose(self) -> None:
        """Closes the connection. Idempotent."""


async def connect_agent(instance: Instance, *, nursery: trio.Nursery) -> ConnectedAgent:
    """Waits until the guest agent answers; without an agent, asks QEMU whether its guest runs.

    The instance closes the connection at its end. Raises AgentError.
    """
    agent = await _connect(instance, nursery)
    instance.close_at_end(agent)
    return agent


def late_agent(instance: Instance, *, nursery: trio.Nursery) -> Agent:
    """The agent of a paused guest: connects, as `connect_agent` does, at the first request."""
    return _LateAgent(partial(connect_agent, instance, nursery=nursery))


class _LateAgent:
    """An agent that connects at the first request, because the agent of a paused guest does not answer before.

    Implements `vmm.contract.Agent`.
    """

    def __init__(self, connect: Callable[[], Awaitable[ConnectedAgent]]) -> None:
        self._connect = connect
        self._connecting = trio.Lock()
        self._client: ConnectedAgent | None = None
        self._connected = trio.Event()

    async def ping(self) -> GuestInfo:
        return await (await self._reach()).ping()

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        return await (await self._reach()).prepare(preparation)

    async def start_command(self, spec: CommandSpec) -> Command:
        return await (await self._reach()).start_command(spec)

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        await (await self._reach()).put_file(path, data, mode=mode)

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        return await (await self._reach()).get_file(path, limit=limit)

    async def usage(self) -> Usage:
        return await (await self._reach()).usage()

    async def set_clock(self, wall_clock_ns: int) -> None:
        await (await self._reach()).set_clock(wall_clock_ns)

    @property
    def processes(self) -> GuestProcesses:
        """Of the connected agent: only a leased VM is asked for these, and a hand-out has connected it."""
        return self._reached().processes

    @property
    def files(self) -> GuestFiles:
        return self._reached().files

    @property
    def ports(self) -> GuestPorts:
        return self._reached().ports

    def _reached(self) -> ConnectedAgent:
        if self._client is None:
            raise AgentUnreachableError("the agent of this guest has not been asked for anything yet")
        return self._client

    async def wait_broken(self) -> AgentProtocolError:
        await self._connected.wait()
        return await (await self._reach()).wait_broken()

    async def _reach(self) -> ConnectedAgent:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
                self._connected.set()
            return self._client


class _ConnectOver(Protocol):
    """Greets the agent at the other end of a stream, and owns the stream from then on."""

    async def __call__(self, stream: trio.abc.Stream, *, nursery: trio.Nursery) -> ConnectedAgent: ...


_CLIENTS: Final[Mapping[AgentKind, _ConnectOver]] = {
    AgentKind.BUILTIN: AgentClient.connect,
    AgentKind.QGA: QgaClient.connect,
}


async def _connect(instance: Instance, nursery: trio.Nursery) -> ConnectedAgent:
    link = instance.agent_link
    if link.agent is AgentKind.NOOP:
        agent = NoopAgent(look=partial(_look, instance))
        await agent.ping()
        return agent
    silence_s = math.inf if link.silence_s is None else link.silence_s
    while True:
        with trio.move_on_after(silence_s):
            stream = await link.open(instance.directory.root, gone=instance.wait_exited)
            return await _CLIENTS[link.agent](stream, nursery=nursery)
        silence_s *= 2


async def _look(instance: Instance) -> None:
    try:
        status = (await instance.execute("query-status"))["status"]
    except (QmpError, VmExitedError) as error:
        raise AgentUnreachableError(f"QEMU does not report its guest's state: {error}") from error
    if status not in _ALIVE:
        raise AgentUnreachableError(f"the guest does not run: QEMU reports {status}")
