"""What a client at full rate does in its VM: a detached process that writes lines, a tree of files, a forward."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import trio

from tests.chaos.books import Books, Holding, ViolationError
from vmpool import CallError, Vm

_LINES: Final = 'i=0; while :; do echo "$i"; i=$((i + 1)); sleep 0.2; done'
_ECHO_PORT: Final = 9000


class CutOffError(Exception):
    """A connection through a forward broke; the service, or the VM, is gone."""


async def follow(vm: Vm, holding: Holding, books: Books) -> None:
    """The process that writes lines, started first, has written all of them, and goes on."""
    if holding.lines is None:
        await _start(vm, _LINES, tag="lines")
        holding.lines = 0
    process = await vm.process("lines")
    output = await process.output()
    lines = output.stdout.split(b"\n")[:-1]
    if process.info.exit is not None or output.stdout_from:
        raise ViolationError(f"the process in {vm.vm_id} has ended, or its output is gone: {process.info}")
    if len(lines) < holding.lines or lines != [b"%d" % number for number in range(len(lines))]:
        raise ViolationError(f"{holding.lines} lines were there of the process in {vm.vm_id}, now: {lines}")
    holding.lines = len(lines)
    books.done["outputs of detached processes"] += 1


async def carry_tree(vm: Vm, books: Books) -> None:
    """There and back."""
    with tempfile.TemporaryDirectory(prefix="vmpool-") as name:
        there, back = Path(name, "there"), Path(name, "back")
        (there / "deep" / "er").mkdir(parents=True)
        for number in range(10):
            (there / "deep" / f"{number}").write_bytes(os.urandom(1000 * number))
        (there / "link").symlink_to("deep/3")
        await vm.files.upload(there, "/tmp/tree")
        await vm.files.download("/tmp/tree", back)
        if (was := _tree(there)) != (found := _tree(back)):
            raise ViolationError(f"the tree came back from {vm.vm_id} as {sorted(found)}, not {sorted(was)}")
    books.done["trees"] += 1


async def hold_forward(vm: Vm, books: Books, *, seconds: float) -> None:
    """What goes in comes back, until the end. Raises CutOffError."""
    await _start(vm, f"exec nc -ll -p {_ECHO_PORT} -e cat", tag="echo")
    await vm.wait_port(_ECHO_PORT)
    async with vm.forward(_ECHO_PORT) as forward:
        ends_at = trio.current_time() + seconds
        async with await trio.open_tcp_stream(forward.host, forward.port) as stream:
            while trio.current_time() < ends_at:
                data, back = os.urandom(5000), b""
                try:
                    await stream.send_all(data)
                    while len(back) < len(data) and (piece := await stream.receive_some()):
                        back += piece
                except trio.BrokenResourceError as error:
                    raise CutOffError from error
                if not data.startswith(back):
                    raise ViolationError(f"a connection to {vm.vm_id} gave back other bytes than it was given")
                if back != data:
                    raise CutOffError
                books.done["exchanges through forwards"] += 1
                await trio.sleep(0.1)


async def _start(vm: Vm, script: str, *, tag: str) -> None:
    """If the answer to an earlier start was lost, it is there."""
    try:
        await vm.start(script, tag=tag)
    except CallError as error:
        if error.status != "ALREADY_EXISTS":
            raise


def _tree(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in root.rglob("*")
    }
