"""The stand-in for what an agent cannot do: refuses each request by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vmm.contract.files import FileReader, FileWriter, TreeWriter
from vmm.contract.ports import PortListener
from vmm.contract.processes import AttachedProcess
from vmm.contract.streams import ByteSource, ByteStream, RecordSource
from vmm.errors import AgentRequestError
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.files import FileChange, FileInfo
from vmm.words.guest_processes import ProcessInfo

Refuse = Callable[[str], AgentRequestError]
"""From a request's name ("stat", "listen") to its refusal."""


class NoProcesses:
    """Implements `vmm.contract.GuestProcesses`."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    async def start(self, spec: CommandSpec, **_: Any) -> ProcessInfo:  # noqa: ARG002 - the contract has it by this name
        raise self._refuse("start")

    async def list(self) -> tuple[ProcessInfo, ...]:
        raise self._refuse("processes")

    async def attach(self, *_: Any, **__: Any) -> AttachedProcess:
        raise self._refuse("attach")

    async def wait(self, *_: Any) -> CommandExit:
        raise self._refuse("wait")

    async def send_input(self, *_: Any, **__: Any) -> None:
        raise self._refuse("input")

    async def send_signal(self, *_: Any, **__: Any) -> None:
        raise self._refuse("signal")

    async def resize(self, *_: Any) -> None:
        raise self._refuse("resize")

    async def forget(self, *_: Any) -> None:
        raise self._refuse("forget")


class NoFiles:
    """Implements `vmm.contract.GuestFiles`."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    async def stat(self, *_: Any, **__: Any) -> FileInfo:
        raise self._refuse("stat")

    async def edit(self, edit: object, **_: Any) -> FileInfo | None:
        raise self._refuse(type(edit).__name__)

    async def list(self, *_: Any, **__: Any) -> RecordSource[FileInfo]:
        raise self._refuse("list")

    async def read(self, *_: Any, **__: Any) -> FileReader:
        raise self._refuse("read")

    async def write(self, *_: Any, **__: Any) -> FileWriter:
        raise self._refuse("write")

    async def watch(self, *_: Any, **__: Any) -> RecordSource[FileChange]:
        raise self._refuse("watch")

    async def read_tree(self, *_: Any, **__: Any) -> ByteSource:
        raise self._refuse("read_tree")

    async def write_tree(self, *_: Any, **__: Any) -> TreeWriter:
        raise self._refuse("write_tree")


class NoPorts:
    """Implements `vmm.contract.GuestPorts`."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    async def connect(self, *_: Any, **__: Any) -> ByteStream:
        raise self._refuse("connect")

    async def listen(self, *_: Any) -> PortListener:
        raise self._refuse("listen")

    async def wait(self, *_: Any) -> None:
        raise self._refuse("wait_port")
