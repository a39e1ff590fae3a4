"""A leased VM, and what one can do with it."""

from __future__ import annotations

import asyncio
import codecs
import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, overload

from vmpool.aio.files import Files
from vmpool.aio.ports import Ports
from vmpool.aio.processes import DetachedProcess
from vmpool.client import methods
from vmpool.client.chunks import Chunks, pieces
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.client.convert_guest import exec_start, process_info, spelled, vm_metrics
from vmpool.client.endings import finish
from vmpool.client.errors import CallError, CommandError, OutputTooLargeError
from vmpool.client.opening import Opening, Resource, internal
from vmpool.client.records import (
    AcquiredVm,
    AcquireTimings,
    CommandExit,
    CompletedCommand,
    Guest,
    Match,
    Output,
    OutputStream,
    ProcessInfo,
    VmMetrics,
)
from vmpool.client.remote import RemoteCommand, execute
from vmpool.client.requests import Command, Limit, Terminal
from vmpool.client.sdk import release, renew
from vmpool.wire.generated.vmpool import v1 as wire

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
"""What `run` takes into memory unless it is told otherwise."""

START_LIMIT_S: Final = 30.0

OutputCallback = Callable[[bytes], object]
"""Takes a piece of output as it comes. What is awaitable is awaited, and output waits meanwhile."""


class Vm(Ports, Resource):
    """A leased VM. From `Pool.vm` it is released at the end of the block; from `Pool.acquire` or `Pool.get`, by
    `release`, or when its lease expires.

    Methods raise ClientError: ServiceUnavailableError, or CallError with the status NOT_FOUND if there is no such
    lease, FAILED_PRECONDITION if it has ended or if the guest's agent does not support the call, ABORTED if it ends
    meanwhile, PERMISSION_DENIED, UNAVAILABLE if the guest cannot be reached. What the guest's kernel refuses is a
    GuestError, which is an OSError as well.
    """

    def __init__(self, connection: Connection, lease: AcquiredVm, *, reconnect_s: float) -> None:
        super().__init__(connection, lease.lease_id)
        self._lease = lease
        self._reconnect_s = reconnect_s
        self._files = Files(connection, lease.lease_id)

    def __repr__(self) -> str:
        return f"<Vm {self._lease.vm_id}, lease {self._lease.lease_id}>"

    @property
    def lease(self) -> AcquiredVm:
        """All that is known of it."""
        return self._lease

    @property
    def lease_id(self) -> str:
        return self._lease.lease_id

    @property
    def vm_id(self) -> str:
        return self._lease.vm_id

    @property
    def name(self) -> str:
        """As its caller named the lease; empty for none."""
        return self._lease.name

    @property
    def profile(self) -> str:
        return self._lease.profile

    @property
    def labels(self) -> Mapping[str, str]:
        """As given when the lease was acquired."""
        return self._lease.labels

    @property
    def guest(self) -> Guest:
        """The guest's own report after it was prepared."""
        return self._lease.guest

    @property
    def timings(self) -> AcquireTimings:
        """How long the stages of its acquisition took; zeros for a lease that was found again."""
        return self._lease.timings

    @property
    def match(self) -> Match | None:
        """None unless the request had a configuration of its own."""
        return self._lease.match

    @property
    def fencing_token(self) -> int:
        """Grows with every lease; for a resource that must refuse earlier holders."""
        return self._lease.fencing_token

    @property
    def files(self) -> Files:
        """The guest's files."""
        return self._files

    @overload
    async def run(
        self,
        command: Command,
        *,
        input: Chunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: str = "utf-8",
    ) -> CompletedCommand[str]: ...

    @overload
    async def run(
        self,
        command: Command,
        *,
        input: Chunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: None,
    ) -> CompletedCommand[bytes]: ...

    async def run(
        self,
        command: Command,
        *,
        input: Chunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: str | None = "utf-8",
    ) -> Any:
        """Runs a command to its end, and returns what it wrote.

        A str is a line for the guest's /bin/sh, a sequence is program and arguments. `input` is its stdin, which is
        empty otherwise. `user` and `groups` are names or numbers in the guest; root unless named. The guest kills the
        command, with all that it started, after `timeout` seconds: the result says `timed_out`. `limits` are those of
        setrlimit(2) by name, "nofile" or "as", as one number or soft and hard. What the command leaves running in the
        guest is killed at its end, unless `leave_children`.

        Bytes that are not of `encoding` are replaced; with None, stdout and stderr are bytes. Callbacks get them as
        they come, as bytes, and they are in the result as well.

        Raises, beside what all methods raise: with `check`, CommandError unless the status is 0. OutputTooLargeError if
        there is more output than `max_output` bytes, stdout and stderr together; the command is killed.
        INVALID_ARGUMENT if it cannot be started. LookupError for an unknown encoding. If cancelled, the command is
        killed.
        """
        start = exec_start(
            self.lease_id,
            command,
            environment=environment,
            cwd=cwd,
            user=user,
            groups=groups,
            timeout=timeout,
            limits=limits,
            terminal=None,
            leave_children=leave_children,
        )
        if encoding is not None:
            codecs.lookup(encoding)  # an unknown one is refused here, not when the command has run
        output = {stream: bytearray() for stream in OutputStream}
        callbacks = {OutputStream.STDOUT: on_stdout, OutputStream.STDERR: on_stderr}

        async def take(piece: Output) -> None:
            output[piece.stream] += piece.data
            if sum(map(len, output.values())) > max_output:
                raise OutputTooLargeError(
                    limit=max_output,
                    stdout=bytes(output[OutputStream.STDOUT]),
                    stderr=bytes(output[OutputStream.STDERR]),
                )
            if (callback := callbacks[piece.stream]) is not None:
                told = callback(piece.data)
                if inspect.isawaitable(told):
                    await told

        ended = await self._run_to_the_end(start, input, take, timeout)
        completed: CompletedCommand[Any] = CompletedCommand(
            exit=ended, stdout=bytes(output[OutputStream.STDOUT]), stderr=bytes(output[OutputStream.STDERR])
        )
        if encoding is not None:
            completed = CompletedCommand(
                exit=ended,
                stdout=completed.stdout.decode(encoding, "replace"),
                stderr=completed.stderr.decode(encoding, "replace"),
            )
        if check and not ended.ok:
            raise CommandError(command=spelled(command), completed=completed)
        return completed

    def exec(
        self,
        command: Command,
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        terminal: Terminal | None = None,
        leave_children: bool = False,
    ) -> Opening[RemoteCommand]:
        """A running command, to talk to. Killed at the end of the block if it still runs. Arguments as for `run`.

        `stdin` is all that it can read, at most 256 KiB; it is sent with the start, which all agents support. None:
        `send_stdin` sends it. With a `terminal`, all output is stdout.
        """
        start = exec_start(
            self.lease_id,
            command,
            environment=environment,
            cwd=cwd,
            user=user,
            groups=groups,
            timeout=timeout,
            limits=limits,
            terminal=terminal,
            leave_children=leave_children,
            stdin=stdin or b"",
        )
        return execute(self._connection, start, time_limit_s=timeout, stdin=stdin)

    async def start(
        self,
        command: Command,
        *,
        tag: str = "",
        keep_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        terminal: Terminal | None = None,
        leave_children: bool = False,
    ) -> DetachedProcess:
        """Starts a process that goes on when this program, or the service, ends. Arguments as for `run`.

        The guest keeps the last `keep_bytes` of each of stdout and stderr (1 MiB, which is the most), and its exit
        until `forget`, or until 256 later ones have ended. By its `tag` it is found again; of running processes, one
        has it: CallError ALREADY_EXISTS. If cancelled, it leaves no process.
        """
        start = exec_start(
            self.lease_id,
            command,
            environment=environment,
            cwd=cwd,
            user=user,
            groups=groups,
            timeout=timeout,
            limits=limits,
            terminal=terminal,
            leave_children=leave_children,
        )
        request = wire.StartRequest(process=start, tag=tag, keep_bytes=keep_bytes or 0)
        # Whether a cancelled call has started something is not known before its answer, so the answer is waited for.
        asking = asyncio.ensure_future(self._connection.ask(methods.START, request, timeout_s=START_LIMIT_S))
        try:
            reply = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await finish(self._undo_start(asking))
            raise
        return self._detached(process_info(reply.process))

    async def processes(self) -> list[ProcessInfo]:
        """All that run, and those of `start` that have ended and are kept."""
        request = wire.ListProcessesRequest(lease_id=self.lease_id)
        reply = await self._connection.ask(methods.LIST_PROCESSES, request, timeout_s=ANSWER_LIMIT_S)
        return [process_info(process) for process in reply.processes]

    async def process(self, id_or_tag: int | str) -> DetachedProcess:
        """A process of `start`, also of another program's: by its number, or the one that has the tag, or had it last.

        CallError NOT_FOUND if there is none.
        """
        found: ProcessInfo | None = None
        for process in await self.processes():
            known_as = process.tag if isinstance(id_or_tag, str) else process.process_id
            if process.attached or not id_or_tag or known_as != id_or_tag:
                continue
            if found is None or found.exit is not None:
                found = process
        if found is None:
            raise _no_process(id_or_tag)
        return self._detached(found)

    async def metrics(self) -> VmMetrics:
        """What it uses: CPU, memory, processes, disk."""
        request = wire.VmMetricsRequest(lease_id=self.lease_id)
        return vm_metrics(await self._connection.ask(methods.VM_METRICS, request, timeout_s=ANSWER_LIMIT_S))

    async def console(self) -> str:
        """The end of what the guest wrote to its console, at most 64 KiB; not fit for a terminal as it is."""
        request = wire.ConsoleRequest(vm_id=self.vm_id)
        return str((await self._connection.ask(methods.CONSOLE, request, timeout_s=ANSWER_LIMIT_S)).text)

    async def renew(self, ttl: float) -> float:
        """Sets the lease's time to live, in seconds from now on; returns it as the service set it."""
        return await renew(self._connection, self.lease_id, ttl_s=ttl)

    async def release(self) -> None:
        """Ends the lease and destroys the VM, also before the end of its block."""
        await release(self._connection, self.lease_id)

    @internal
    async def abandon(self) -> None:
        """As `release`, for a lease that nobody will use; used by the faces."""
        await self.release()

    async def _run_to_the_end(
        self, start: wire.ExecStart, input: Chunks | None, take: Callable[[Output], Any], timeout: float | None
    ) -> CommandExit:
        """With stdin sent and output received at the same time, or both sides could wait for each other."""
        streams_stdin = input is not None and not (isinstance(input, bytes) and not input)
        async with execute(
            self._connection, start, time_limit_s=timeout, stdin=None if streams_stdin else b""
        ) as command:
            if not streams_stdin:
                return await command.feed(take)
            assert input is not None
            feeding = asyncio.ensure_future(_send_all(command, pieces(input)))
            receiving = asyncio.ensure_future(command.feed(take))
            try:
                await asyncio.wait([feeding, receiving], return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    feeding.result()  # raises what the caller's data raises
                return await receiving
            finally:
                feeding.cancel()
                receiving.cancel()
                await finish(_all_ended(feeding, receiving))

    def _detached(self, process: ProcessInfo) -> DetachedProcess:
        return DetachedProcess(self._connection, self.lease_id, process, reconnect_s=self._reconnect_s)

    async def _undo_start(self, asking: asyncio.Future[Any]) -> None:
        await asyncio.wait([asking])
        if asking.cancelled() or asking.exception() is not None:
            return
        await self._detached(process_info(asking.result().process)).abandon()


async def _send_all(command: RemoteCommand, data: AsyncIterator[bytes]) -> None:
    async for piece in data:
        await command.send_stdin(piece)
    await command.close_stdin()


async def _all_ended(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen; the first error was raised


def _no_process(id_or_tag: int | str) -> CallError:
    return CallError(status="NOT_FOUND", message=f"process: the VM has none with the number or tag {id_or_tag!r}")
