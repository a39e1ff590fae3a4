"""The tools. Their docstrings and the descriptions of their arguments are what a model is told of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final

import attrs
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from vmpool.client.errors import ClientError
from vmpool.client.requests import WriteMode
from vmpool.frameworks.mcp_server import processes
from vmpool.frameworks.mcp_server.machines import Kept, Machines, NoSuchVmError, TooManyVmsError
from vmpool.frameworks.mcp_server.results import (
    CommandResult,
    Encoding,
    Ended,
    Entry,
    FileContent,
    Forwarded,
    Listing,
    ProcessOutput,
    Started,
    Stopped,
    VmInfo,
    VmList,
    Written,
)
from vmpool.frameworks.mcp_server.text import whole_characters

READ_BYTES: Final = 256 * 1024
ENTRIES: Final = 1000
LONGEST_S: Final = 3600.0

_TELL_EVERY_S: Final = 2.0
"""Clients give up on a call of which they hear nothing, many after a minute."""

VmName = Annotated[str, Field(description="As create_vm returned it; may be omitted while there is one VM.")]
Path = Annotated[str, Field(description="Absolute path in the VM.")]
User = Annotated[str, Field(description="Name or number of a user in the VM. Default: root.")]
Command = Annotated[
    str | list[str], Field(description="A line for /bin/sh, or a list of program and arguments, used as they are.")
]
Cwd = Annotated[str | None, Field(description="Working directory in the VM.")]
Environment = Annotated[dict[str, str] | None, Field(description="Environment variables to add.")]
ProcessNumber = Annotated[int, Field(description="As start_process returned it.")]


@attrs.frozen(eq=False)
class Tools:
    machines: Machines

    async def create_vm(
        self,
        ctx: Context[Any, Any],
        *,
        profile: Annotated[str, Field(description="Kind of VM. Default: the server's.")] = "",
        name: Annotated[str, Field(description="A name for it, in place of a generated one.")] = "",
        environment: Annotated[
            dict[str, str] | None, Field(description="Environment variables for everything that runs in it.")
        ] = None,
        vcpus: Annotated[int | None, Field(ge=1)] = None,
        memory_mib: Annotated[int | None, Field(ge=1)] = None,
        timeout: Annotated[float, Field(gt=0, le=LONGEST_S, description="Seconds to wait for one.")] = 120.0,
    ) -> VmInfo:
        """Create a fresh, isolated Linux VM and return its name. It is destroyed by end_vm, or with this server."""
        with _as_sentences():
            async with _telling(ctx, lambda: "waiting for a VM"):
                called, kept = await self.machines.create(
                    profile=profile,
                    name=name,
                    environment=environment or {},
                    vcpus=vcpus,
                    memory_mib=memory_mib,
                    timeout=timeout,
                )
        return _info(called, kept)

    async def list_vms(self) -> VmList:
        """List the VMs that create_vm has created and that have not been ended."""
        known = self.machines.all()
        return VmList(vms=[_info(name, kept) for name, kept in known.items()], most=self.machines.most)

    async def end_vm(self, vm: VmName = "") -> Ended:
        """Destroy a VM, with all files and processes in it."""
        with _as_sentences():
            return Ended(vm=await self.machines.end(vm))

    async def run_command(
        self,
        ctx: Context[Any, Any],
        *,
        command: Command,
        vm: VmName = "",
        stdin: Annotated[str, Field(description="What the command can read from its standard input.")] = "",
        cwd: Cwd = None,
        environment: Environment = None,
        user: User = "",
        timeout: Annotated[
            float, Field(gt=0, le=LONGEST_S, description="Seconds after which it is killed, with what it started.")
        ] = 60.0,
    ) -> CommandResult:
        """Run a command in a VM to its end and return its output and exit status.

        Of stdout and of stderr at most 32 KiB are returned: of longer output the beginning and the end. What the
        command leaves running is killed; use start_process for servers.
        """
        written = 0

        def progress(so_far: int) -> None:
            nonlocal written
            written = so_far

        with _as_sentences():
            async with _telling(ctx, lambda: f"running; {written} bytes of output"):
                return await processes.run(
                    self.machines.named(vm).vm,
                    command,
                    stdin=stdin,
                    environment=environment or {},
                    cwd=cwd,
                    user=user,
                    timeout=timeout,
                    progress=progress,
                )

    async def start_process(
        self, *, command: Command, vm: VmName = "", cwd: Cwd = None, environment: Environment = None, user: User = ""
    ) -> Started:
        """Start a process in a VM and return at once; it runs on in the background.

        The last 1 MiB of each of its stdout and stderr is kept for process_output.
        """
        with _as_sentences():
            process = await self.machines.named(vm).vm.start(command, cwd=cwd, environment=environment or {}, user=user)
        return Started(process=process.process_id)

    async def process_output(
        self,
        ctx: Context[Any, Any],
        *,
        process: ProcessNumber,
        vm: VmName = "",
        stdout_from: Annotated[int, Field(ge=0, description="next_stdout of an earlier call.")] = 0,
        stderr_from: Annotated[int, Field(ge=0, description="next_stderr of an earlier call.")] = 0,
        wait: Annotated[float, Field(ge=0, le=LONGEST_S, description="Seconds to wait for its end.")] = 0.0,
    ) -> ProcessOutput:
        """Return what a process of start_process has written, and whether it still runs or how it ended."""
        with _as_sentences():
            async with _telling(ctx, lambda: "waiting for the process"):
                found = await self.machines.named(vm).vm.process(process)
                return await processes.output(found, stdout_from=stdout_from, stderr_from=stderr_from, wait_s=wait)

    async def stop_process(self, process: ProcessNumber, vm: VmName = "") -> Stopped:
        """End a process of start_process: SIGTERM, and SIGKILL if it still runs 5 seconds later."""
        with _as_sentences():
            return await processes.stop(await self.machines.named(vm).vm.process(process))

    async def write_file(
        self,
        *,
        path: Path,
        content: str,
        vm: VmName = "",
        encoding: Annotated[Encoding, Field(description="base64: content is base64 of the file's bytes.")] = "text",
        append: Annotated[bool, Field(description="Add to the end of the file.")] = False,
        user: User = "",
    ) -> Written:
        """Write a file in a VM; a file that is there is replaced. Missing directories are made."""
        with _as_sentences():
            data = _decoded(content) if encoding == "base64" else content.encode()
            how = WriteMode.APPEND if append else WriteMode.REPLACE
            await self.machines.named(vm).vm.files.write(path, data, how=how, user=user)
        return Written(path=path, bytes=len(data))

    async def read_file(
        self,
        *,
        path: Path,
        vm: VmName = "",
        encoding: Annotated[Encoding, Field(description="base64: for files that are not UTF-8 text.")] = "text",
        offset: Annotated[int, Field(ge=0, description="Where to begin, in bytes.")] = 0,
        length: Annotated[int, Field(ge=1, le=READ_BYTES, description="How many bytes, at most.")] = 64 * 1024,
        user: User = "",
    ) -> FileContent:
        """Read a file in a VM, or a part of it."""
        with _as_sentences():
            # One byte more shows whether there is more; files of /proc do not tell their size.
            data = await self.machines.named(vm).vm.files.read(path, offset=offset, length=length + 1, user=user)
            data, more = data[:length], len(data) > length
            if encoding == "base64":
                content, length = base64.b64encode(data).decode(), len(data)
            else:
                content, length = _text(data, path, more=more)
        return FileContent(content=content, encoding=encoding, offset=offset, length=length, end_of_file=not more)

    async def list_files(
        self,
        *,
        path: Path,
        vm: VmName = "",
        depth: Annotated[int, Field(ge=1, le=64, description="1: only what is in the directory itself.")] = 1,
        user: User = "",
    ) -> Listing:
        """List a directory in a VM: at most 1000 entries, by path."""
        with _as_sentences():
            found = await self.machines.named(vm).vm.files.list(path, depth=depth, user=user)
        entries = [
            Entry(path=_printable(file.path), kind=file.kind.value, size=file.size, mode=f"{file.mode:04o}")
            for file in sorted(found, key=lambda file: file.path)[:ENTRIES]
        ]
        return Listing(entries=entries, complete=len(found) <= ENTRIES)

    async def expose_port(
        self,
        ctx: Context[Any, Any],
        *,
        port: Annotated[int, Field(ge=1, le=65535, description="TCP port in the VM.")],
        vm: VmName = "",
        wait: Annotated[float, Field(gt=0, le=LONGEST_S, description="Seconds to wait for a server on it.")] = 30.0,
    ) -> Forwarded:
        """Make a TCP port of a VM reachable on the loopback interface of the computer on which this server runs.

        It is open until the VM is ended.
        """
        with _as_sentences():
            kept = self.machines.named(vm)
            async with _telling(ctx, lambda: f"waiting for port {port}"):
                await kept.vm.wait_port(port, timeout=wait)
            if port not in kept.forwards:
                forward = await kept.vm.forward(port)
                if kept.forwards.setdefault(port, forward) is not forward:  # another call was faster
                    await forward.aclose()
            forward = kept.forwards[port]
        return Forwarded(host=forward.host, port=forward.port)


@contextlib.contextmanager
def _as_sentences() -> Iterator[None]:
    """What may go wrong, as the tool's error, which the model reads. Anything else is a fault of this program."""
    try:
        yield
    except (ClientError, OSError, NoSuchVmError, TooManyVmsError) as error:
        raise ToolError(str(error)) from error


@contextlib.asynccontextmanager
async def _telling(ctx: Context[Any, Any], what: Callable[[], str]) -> AsyncIterator[None]:
    """Tells the client, if it wants to know, that the call is still at work."""

    async def tell() -> None:
        seconds = 0.0
        while True:
            await ctx.report_progress(seconds, message=what())
            await asyncio.sleep(_TELL_EVERY_S)
            seconds += _TELL_EVERY_S

    telling = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        telling.cancel()


def _info(name: str, kept: Kept) -> VmInfo:
    return VmInfo(
        vm=name,
        profile=kept.vm.profile,
        vcpus=kept.vm.guest.cpus_online,
        memory_mib=kept.vm.guest.memory_mib,
        forwards={port: str(forward) for port, forward in kept.forwards.items()},
    )


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ToolError(f"content is not base64: {error}") from error


def _text(data: bytes, path: str, *, more: bool) -> tuple[str, int]:
    try:
        return whole_characters(data, more=more)
    except UnicodeDecodeError as error:
        raise ToolError(
            f"{path} is not UTF-8 text at byte {error.start} of what was read: read it with encoding base64"
        ) from error


def _printable(path: str) -> str:
    """Bytes that are not UTF-8 are surrogates, which JSON cannot carry."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
