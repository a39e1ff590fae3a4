"""A qemu-ga that lives in the test: serial, with processes and files that are as the test wants them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import attrs
import trio
import trio.testing

from vmm.guest.qga.session import TAKE_OVER


class Refused(Exception):  # noqa: N818 - it is qemu-ga's answer, not an error of the test
    """What a handler raises for qemu-ga to answer with an error."""

    def __init__(self, description: str, *, error_class: str = "GenericError") -> None:
        super().__init__(description)
        self.answer = {"error": {"class": error_class, "desc": description}}


@attrs.define
class FakeProcess:
    """Runs until it is told to end, or killed."""

    argv: list[str]
    environment: list[str] = attrs.field(factory=list)
    stdin: bytes = b""
    end: dict[str, Any] | None = None


@attrs.define(eq=False)
class FakeQga:
    """Serves one stream. `hold` keeps answers back, as a paused guest does."""

    stream: trio.abc.Stream
    heard: list[str] = attrs.field(factory=list)
    """Names of the commands, in order."""
    processes: dict[int, FakeProcess] = attrs.field(factory=dict)
    handles: dict[int, tuple[str, int]] = attrs.field(factory=dict)
    """Path and position of what is open."""
    files: dict[str, bytes] = attrs.field(factory=dict)
    handlers: dict[str, Callable[[dict[str, Any]], Any]] = attrs.field(factory=dict)
    """What the test wants to be answered instead."""
    on_start: Callable[[FakeProcess], None] = lambda _: None
    last_id: int = 0
    last_pid: int = 99
    last_handle: int = 999
    _may_answer: trio.Event = attrs.field(factory=trio.Event)
    _pending: bytes = b""
    _forgetting: bool = False

    def __attrs_post_init__(self) -> None:
        self._may_answer.set()

    def hold(self) -> None:
        self._may_answer = trio.Event()

    def release(self) -> None:
        self._may_answer.set()

    def forget(self) -> None:
        """Starts anew: what it was asked and has not answered is lost."""
        self._pending = b""
        self._forgetting = True
        self._may_answer.set()

    async def run(self) -> None:
        """Until either side hangs up."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some():
                self._pending += bytes(data)
                while b"\n" in self._pending:
                    line, _, self._pending = self._pending.partition(b"\n")
                    await self._answer(line)

    async def _answer(self, line: bytes) -> None:
        is_sync = b"\xff" in line
        request = json.loads(line.rpartition(b"\xff")[2])
        self.heard.append(request["execute"])
        self.last_id = request["id"]
        held = not self._may_answer.is_set()
        await self._may_answer.wait()
        if held and self._forgetting:
            self._forgetting = False
            return
        try:
            answer = {"return": self._do(request["execute"], request.get("arguments", {}))}
        except Refused as refused:
            answer = refused.answer
        delimiter = b"\xff" if is_sync else b""
        await self.stream.send_all(delimiter + json.dumps(answer | {"id": request["id"]}).encode() + b"\n")

    def _do(self, name: str, arguments: dict[str, Any]) -> Any:
        if name in self.handlers:
            return self.handlers[name](arguments)
        match name:
            case "guest-sync-delimited":
                return arguments["id"]
            case "guest-exec":
                return self._exec(arguments)
            case "guest-exec-status":
                return self._status(arguments["pid"])
            case "guest-file-open":
                return self._open(arguments["path"], arguments["mode"])
            case "guest-file-read":
                return self._read(arguments["handle"], arguments["count"])
            case "guest-file-write":
                path, _ = self._handle(arguments["handle"])
                data = base64.b64decode(arguments["buf-b64"])
                self.files[path] += data
                return {"count": len(data), "eof": False}
            case "guest-file-close":
                self._handle(arguments["handle"])
                del self.handles[arguments["handle"]]
                return {}
        raise Refused(f"The command {name} has not been found", error_class="CommandNotFound")

    def _exec(self, arguments: dict[str, Any]) -> dict[str, int]:
        argv = [arguments["path"], *arguments["arg"]]
        process = FakeProcess(argv, arguments["env"], base64.b64decode(arguments.get("input-data", "")))
        self.last_pid += 1
        pid = self.last_pid
        self.processes[pid] = process
        if argv[:2] == ["/bin/sh", "-c"] and argv[2].startswith("kill "):
            process.end = {"exitcode": 0}
            if victim := self.processes.get(int(argv[4])):
                victim.end = victim.end or {"signal": int(argv[3])}
        elif argv[:3] == ["/bin/sh", "-c", TAKE_OVER]:
            killed = [other for other in self.processes if other != pid]
            for other in killed:
                self.processes[other].end = self.processes[other].end or {"signal": 9}
            said = " ".join(map(str, killed)).encode() + b"\n" + self.files.get(argv[3], b"")
            process.end = {"exitcode": 0, "out-data": base64.b64encode(said).decode()}
        else:
            self.on_start(process)
        return {"pid": pid}

    def _status(self, pid: int) -> dict[str, Any]:
        process = self.processes.get(pid)
        if process is None:
            raise Refused("PID does not exist")
        if process.end is None:
            return {"exited": False}
        del self.processes[pid]
        return {"exited": True, **process.end}

    def _open(self, path: str, mode: str) -> int:
        if mode == "w":
            self.files[path] = b""
        elif path not in self.files:
            raise Refused(f"failed to open file '{path}' (mode: '{mode}'): No such file or directory")
        self.last_handle += 1
        handle = self.last_handle
        self.handles[handle] = (path, 0)
        return handle

    def _handle(self, handle: int) -> tuple[str, int]:
        if handle not in self.handles:
            raise Refused(f"handle '{handle}' has not been found")
        return self.handles[handle]

    def _read(self, handle: int, count: int) -> dict[str, Any]:
        path, position = self._handle(handle)
        piece = self.files[path][position : position + count]
        self.handles[handle] = (path, position + len(piece))
        return {"count": len(piece), "buf-b64": base64.b64encode(piece).decode(), "eof": len(piece) < count}
