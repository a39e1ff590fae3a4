"""The programs of a simulated guest: enough to behave like a few of busybox's, and one that writes at its leisure."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePosixPath
from typing import Final

import trio

from vmm.simulated.network import Network, Peer
from vmm.words.commands import CommandSpec, OutputStream
from vmm.words.ports import TcpAddress

_ENVIRONMENT: Final = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
}
"""As the real agent's."""


class GuestProcess:
    """A program's view of its guest."""

    def __init__(
        self,
        spec: CommandSpec,
        *,
        files: Mapping[str, bytes],
        network: Network,
        stdin: trio.MemoryReceiveChannel[bytes],
        write: Callable[[OutputStream, bytes], Awaitable[None]],
    ) -> None:
        self.arguments = tuple(spec.argv[1:])
        self.environment = {**_ENVIRONMENT, **spec.environment}
        self.working_directory = spec.working_directory or "/"
        self.files = files
        self.network = network
        self.terminal_size = None if spec.terminal is None else spec.terminal.size
        self._stdin = stdin
        self._write = write

    async def read_stdin(self) -> bytes:
        """Some bytes, or none at the end."""
        try:
            return await self._stdin.receive()
        except trio.EndOfChannel:
            return b""

    async def print(self, text: str) -> None:
        await self.write(text.encode() + b"\n")

    async def complain(self, text: str) -> None:
        await self._write(OutputStream.STDERR, text.encode() + b"\n")

    async def write(self, data: bytes) -> None:
        """Waits while the output is unread."""
        await self._write(OutputStream.STDOUT, data)


Program = Callable[[GuestProcess], Awaitable[int]]
"""Runs to its end and returns its exit status. Killed by cancellation."""


async def _echo(process: GuestProcess) -> int:
    await process.print(" ".join(process.arguments))
    return 0


async def _cat(process: GuestProcess) -> int:
    status = 0
    for path in process.arguments:
        if (data := process.files.get(path)) is not None:
            await process.write(data)
        else:
            await process.complain(f"cat: can't open '{path}': No such file or directory")
            status = 1
    if not process.arguments:
        while data := await process.read_stdin():
            await process.write(data)
    return status


async def _sleep(process: GuestProcess) -> int:
    await trio.sleep(float(process.arguments[0]))
    return 0


async def _yes(process: GuestProcess) -> int:
    while True:
        await process.write(b"y\n" * 8192)


async def _lines(process: GuestProcess) -> int:
    """`lines EACH_S`: numbered lines, one each so many seconds, for ever."""
    number = 0
    while True:
        await process.print(f"{number:07}")
        number += 1
        await trio.sleep(float(process.arguments[0]))


async def _env(process: GuestProcess) -> int:
    for name, value in process.environment.items():
        await process.print(f"{name}={value}")
    return 0


async def _pwd(process: GuestProcess) -> int:
    await process.print(process.working_directory)
    return 0


async def _nproc(process: GuestProcess) -> int:
    await process.print(str(process.files["/proc/cpuinfo"].count(b"processor")))
    return 0


async def _nc(process: GuestProcess) -> int:
    """`nc HOST PORT`, or `nc -ll -p PORT -e cat`, which sends back what it gets."""
    match process.arguments:
        case ("-ll", "-p", port, "-e", "cat"):
            await _serve_echo(process.network, TcpAddress(port=int(port)))
        case (host, port):
            try:
                peer = await process.network.connect(TcpAddress(host=host, port=int(port)))
            except OSError as error:
                await process.complain(f"nc: can't connect to remote host ({host}): {error.strerror}")
                return 1
            return await _carry(process, peer)
    await process.complain("nc: invalid option")
    return 1


async def _serve_echo(network: Network, address: TcpAddress) -> None:
    async def echo(peer: Peer) -> None:
        try:
            while data := await peer.receive():
                await peer.send(data)
        except OSError:
            return  # the peer is gone
        finally:
            peer.close()

    with network.listen(address) as (_, incoming):
        async with trio.open_nursery() as nursery:
            async for peer in incoming:
                nursery.start_soon(echo, peer)


async def _carry(process: GuestProcess, peer: Peer) -> int:
    async def feed() -> None:
        with contextlib.suppress(OSError):  # of which receiving tells, too
            while data := await process.read_stdin():
                await peer.send(data)
            peer.send_eof()

    async def take() -> int:
        try:
            while data := await peer.receive():
                await process.write(data)
        except OSError as error:
            await process.complain(f"nc: {error.strerror}")
            return 1
        return 0

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            status = await take()
            nursery.cancel_scope.cancel(reason="the peer has ended")
    finally:
        peer.close()
    return status


async def _sh(process: GuestProcess) -> int:
    """`sh -c LINE`, where the line is one command."""
    match process.arguments:
        case ("-c", line):
            name, *arguments = shlex.split(line)
            if (program := PROGRAMS.get(PurePosixPath(name).name)) is None:
                await process.complain(f"sh: {name}: not found")
                return 127
            process.arguments = tuple(arguments)
            return await program(process)
    await process.complain("sh: invalid option")
    return 2


async def _stty(process: GuestProcess) -> int:
    if process.terminal_size is None:
        await process.complain("stty: standard input: Inappropriate ioctl for device")
        return 1
    await process.print(f"{process.terminal_size.rows} {process.terminal_size.columns}")
    return 0


async def _true(_process: GuestProcess) -> int:
    await trio.lowlevel.checkpoint()
    return 0


async def _false(_process: GuestProcess) -> int:
    await trio.lowlevel.checkpoint()
    return 1


PROGRAMS: Mapping[str, Program] = {
    "cat": _cat,
    "echo": _echo,
    "env": _env,
    "false": _false,
    "lines": _lines,
    "nc": _nc,
    "nproc": _nproc,
    "pwd": _pwd,
    "sh": _sh,
    "sleep": _sleep,
    "stty": _stty,
    "true": _true,
    "yes": _yes,
}
