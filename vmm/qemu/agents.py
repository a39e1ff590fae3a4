"""From a running QEMU to its guest's agent, whichever it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import trio

from vmm.contract import Agent, Command
from vmm.errors import AgentProtocolError, AgentUnreachableError, QmpError, VmExitedError
from vmm.guest.client import AgentClient
from vmm.guest.noop import NoopAgent
from vmm.guest.qga.client import QgaClient
from vmm.qemu.directory import connect
from vmm.qemu.instance import Instance
from vmm.qemu.vsock import connect_vsock
from vmm.spec import AgentKind
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport

_ALIVE: Final = frozenset({"running", "paused"})
"""What `query-status` says of a guest that has not met its end."""


_SILENCE_S: Final = 2.0
"""How long an agent may be silent before we hang up and connect anew, and twice as long the next time.

What a guest says at the moment in which its host hangs up may stay in QEMU's hands (7.2: one element of the port's
queue is in use, and the port throttled), and nothing that it says later gets out until the host hangs up once more. A
guest that boots needs longer, and does not mind."""


class ConnectedAgent(Agent, Protocol):
    """An agent with the connection to it."""

    async def aclose(self) -> None:
        """Hangs up. Idempotent."""


async def connect_agent(instance: Instance, *, nursery: trio.Nursery) -> ConnectedAgent:
    """Waits until the guest agent answers; where there is none, asks QEMU whether its guest is alive.

    The instance closes the connection in the end. Raises AgentError.
    """
    agent = await _connect(instance, nursery)
    instance.close_at_end(agent)
    return agent


def late_agent(instance: Instance, *, nursery: trio.Nursery) -> Agent:
    """The agent of a guest that is paused: it is connected to, as by `connect_agent`, when it is first asked."""
    return _LateAgent(partial(connect_agent, instance, nursery=nursery))


class _LateAgent:
    """An agent that is connected to when it is first asked: that of a paused guest would not answer before.

    Fulfils `vmm.contract.Agent`.
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

    async def wait_broken(self) -> AgentProtocolError:
        await self._connected.wait()
        return await (await self._reach()).wait_broken()

    async def _reach(self) -> ConnectedAgent:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
                self._connected.set()
            return self._client


async def _connect(instance: Instance, nursery: trio.Nursery) -> ConnectedAgent:
    link = instance.agent_link
    match link.agent:
        case AgentKind.NOOP:
            agent = NoopAgent(look=partial(_look, instance))
            await agent.ping()
            return agent
        case AgentKind.QGA:
            return await _until_heard(instance, partial(QgaClient.connect, nursery=nursery))
        case AgentKind.BUILTIN:
            if link.vsock_cid is None:
                return await _until_heard(instance, partial(AgentClient.connect, nursery=nursery))
            stream = await connect_vsock(link.vsock_cid, gone=instance.wait_exited)
            return await AgentClient.connect(stream, nursery=nursery)


async def _until_heard(
    instance: Instance, connect_over: Callable[[trio.abc.Stream], Awaitable[ConnectedAgent]]
) -> ConnectedAgent:
    silence_s = _SILENCE_S
    while True:
        with trio.move_on_after(silence_s):
            return await connect_over(await _open_port(instance))
        silence_s *= 2


async def _look(instance: Instance) -> None:
    try:
        status = (await instance.execute("query-status"))["status"]
    except (QmpError, VmExitedError) as error:
        raise AgentUnreachableError(f"QEMU does not answer for its guest: {error}") from error
    if status not in _ALIVE:
        raise AgentUnreachableError(f"the guest does not run: QEMU's status is {status}")


async def _open_port(instance: Instance) -> trio.SocketStream:
    path = instance.directory.agent_socket
    try:
        return await connect(path)
    except OSError as error:
        raise AgentUnreachableError(f"{path}: {error}; QEMU is dead or serves another") from error
