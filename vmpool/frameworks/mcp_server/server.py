"""The server: tools over stdin and stdout, and the VMs that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

from vmpool.aio import Opening, Pool, connect, standalone
from vmpool.frameworks.mcp_server.machines import Machines
from vmpool.frameworks.mcp_server.tools import Tools

_INSTRUCTIONS: Final = (
    "Virtual machines to run commands and programs in, isolated from the user's computer. Create one with create_vm, "
    "then use run_command, write_file, read_file. Files and processes last until end_vm."
)

_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_CHANGES: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
_REPLACES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


@attrs.frozen(kw_only=True)
class Settings:
    socket_path: Path | None = None
    """Of the service; None: the usual places."""
    own_service: bool = False
    """Start a service for as long as the server runs, in place of using one."""
    profile: str = ""
    """Of VMs for which the model names none."""
    most_vms: int = 4
    forward: bool = False
    """Whether ports may be opened on this host's loopback."""


def serve(settings: Settings) -> None:
    """Serves one client over this process's stdin and stdout, until it closes them.

    On SIGINT, SIGTERM and SIGHUP the VMs are ended, and then this process by the signal.
    """
    machines = Machines(open_pool=_pool_of(settings), profile=settings.profile, most=settings.most_vms)
    server(machines, settings).run("stdio")


def server(machines: Machines, settings: Settings) -> MCPServer[None]:
    """A server whose tools use these VMs, and which ends them when its client goes."""

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        if settings.own_service:
            machines.begin()
        with _ending_on_signals(machines):
            try:
                yield
            finally:
                await machines.aclose()

    made: MCPServer[None] = MCPServer(
        "vmpool",
        title="vmpool virtual machines",
        instructions=_INSTRUCTIONS,
        version=version("vmpool"),
        lifespan=lifespan,
        log_level="WARNING",
    )
    tools = Tools(machines)
    made.add_tool(tools.create_vm, annotations=_ADDS)
    made.add_tool(tools.list_vms, annotations=_READS)
    made.add_tool(tools.run_command, annotations=_CHANGES)
    made.add_tool(tools.start_process, annotations=_CHANGES)
    made.add_tool(tools.process_output, annotations=_READS)
    made.add_tool(tools.stop_process, annotations=_REPLACES)
    made.add_tool(tools.write_file, annotations=_CHANGES)
    made.add_tool(tools.read_file, annotations=_READS)
    made.add_tool(tools.list_files, annotations=_READS)
    if settings.forward:
        made.add_tool(tools.expose_port, annotations=_ADDS)
    made.add_tool(tools.end_vm, annotations=_REPLACES)
    return made


def _pool_of(settings: Settings) -> Callable[[], Opening[Pool]]:
    if settings.own_service:
        return lambda: standalone(size=1)
    return lambda: connect(settings.socket_path)


@contextlib.contextmanager
def _ending_on_signals(machines: Machines) -> Iterator[None]:
    """The library cannot be stopped while it waits for its client, in a thread that reads stdin; the process can."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ending: set[asyncio.Task[None]] = set()

    async def end(number: int) -> None:
        try:
            await machines.aclose()
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def begin_to_end(number: int) -> None:
        ending.add(asyncio.ensure_future(end(number)))

    for number in numbers:
        loop.add_signal_handler(number, begin_to_end, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
