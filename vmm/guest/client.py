"""The host's side of the guest agent."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import trio

from vmm.errors import AgentProtocolError
from vmm.guest.command import RemoteCommand
from vmm.guest.connection import Connection
from vmm.guest.files import RemoteFiles
from vmm.guest.ports import RemotePorts
from vmm.guest.processes import RemoteProcesses
from vmm.guest.requests import Request
from vmm.guest.usage import clock_of, usage_of
from vmm.untrusted import said
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage

_Value = TypeVar("_Value")

_NOTHING = attrs.asdict(Preparation(), recurse=False)


class AgentClient:
    """Implements `vmm.contract.Agent` on a byte stream: the socket of QEMU's chardev, or a socket pair in tests.

    Any number of tasks may use it at once; unread output delays only its own command. A cancelled request leaves the
    channel usable: its effects in the guest are undone and its late answer is discarded.
    """

    def __init__(self, connection: Connection) -> None:
        """Use `connect`."""
        self._connection = connection
        self.processes = RemoteProcesses(connection)
        self.files = RemoteFiles(connection)
        self.ports = RemotePorts(connection)

    @classmethod
    async def connect(cls, stream: trio.abc.Stream, *, nursery: trio.Nursery) -> AgentClient:
        """Starts a session, and returns once the agent has answered. Kills commands that an earlier session left.

        A booting guest answers when it has booted; the caller sets the deadline. The client takes over the stream, and
        closes it on failure. `nursery` runs one background task, which never raises into it.

        Raises AgentUnreachableError if the stream ends, AgentProtocolError if the agent speaks another version.
        """
        connection = Connection(stream)
        try:
            await connection.open(nursery)
        except BaseException:
            await connection.aclose()
            raise
        return cls(connection)

    async def ping(self) -> GuestInfo:
        fields = await self._request("ping", {})
        with self._connection.judging():
            return GuestInfo(
                agent_version=_field(fields, "version", int),
                kernel_release=said(_field(fields, "kernel", str)),
                clock=clock_of(fields),
            )

    async def prepare(self, preparation: Preparation) -> PreparationReport:
        """See the contract. The request is queued before the first await and written without a round trip, so it may be
        sent while the vCPUs are stopped: the guest then handles it first when it runs.
        """
        wanted = attrs.asdict(preparation, recurse=False) | {"environment": dict(preparation.environment)}
        # An interpreter under emulation saves time on every field that is not sent.
        given = {name: value for name, value in wanted.items() if value != _NOTHING[name]}
        fields = await self._request("prepare", given)
        with self._connection.judging():
            return PreparationReport(
                reseeded=_field(fields, "reseeded", bool),
                wall_clock_ns=_field(fields, "wall_clock_ns", int),
                hostname=_field(fields, "hostname", str),
                cpus_online=_field(fields, "cpus_online", int),
                memory_mib=_field(fields, "memory_mib", int),
                memory_online_mib=None if preparation.memory_mib is None else _field(fields, "memory_online_mib", int),
                random=_field(fields, "random", bytes) if preparation.random_bytes else b"",
                machine_id="" if preparation.machine_id is None else _field(fields, "machine_id", str),
                vm_uuid="" if preparation.vm_uuid is None else _field(fields, "vm_uuid", str),
            )

    async def start_command(self, spec: CommandSpec) -> RemoteCommand:
        """See the contract. If cancelled while waiting, it kills the command in case it was started."""
        command = RemoteCommand(self._connection, spec)
        try:
            await command.started()
        except BaseException:
            await command.aclose()
            raise
        return command

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        with Request(self._connection, "put", {"path": path, "mode": mode}) as request:
            await request.send(data)
            await request.reply()

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        """See the contract. Keeps at most `limit` bytes, whatever the guest sends."""
        with Request(self._connection, "get", {"path": path, "limit": limit}) as request:
            return await request.receive(limit=limit)

    async def usage(self) -> Usage:
        """See the contract."""
        fields = await self._request("usage", {})
        with self._connection.judging():
            return usage_of(fields)

    async def set_clock(self, wall_clock_ns: int) -> None:
        """See the contract."""
        await self.prepare(Preparation(wall_clock_ns=wall_clock_ns))

    async def wait_broken(self) -> AgentProtocolError:
        """See the contract."""
        return await self._connection.wait_broken()

    async def aclose(self) -> None:
        """Ends the session: pending and later requests fail with AgentUnreachableError. Idempotent; takes under a
        second, also under cancellation. Commands that still run are killed when the next session starts."""
        await self._connection.aclose()

    async def _request(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        with Request(self._connection, name, fields) as request:
            return await request.reply()


def _field(fields: dict[str, Any], name: str, kind: type[_Value]) -> _Value:
    value = fields.get(name)
    if type(value) is not kind:
        raise AgentProtocolError(f"the guest agent's reply has no field {name} of type {kind.__name__}")
    return value
