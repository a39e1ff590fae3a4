"""What foreign clients call, and what they must be told: every method that reaches into a VM, or finds a lease.

The guest is one in the hands of the test: what is shown is that the messages mean the same on both sides.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import attrs

from pool.ledger.records import Owner
from tests.unit.rpc.fake_guest import (
    FILE,
    PROCESS,
    USAGE,
    Answering,
    Attached,
    Connection,
    Listener,
    Sink,
    Source,
    refusal,
    replace_in_guest,
)
from tests.unit.rpc.served import serving
from vmm.words.commands import CommandExit, OutputStream
from vmm.words.files import FileChange, FileChangeKind, TreeSummary
from vmm.words.guest_processes import ProcessOutput, ProcessRef
from vmm.words.leases import LeaseRequest
from vmm.words.ports import TcpAddress
from vmm.words.usage import Usage

NAME: Final = "builder"

EXPECTED: Final[dict[str, Any]] = {
    "GetLease": NAME,
    "ListLeases": [NAME],
    "ListLeases of others": [],
    "VmMetrics": [9, 0.25],
    "Exec": "hello\n",
    "Start": 7,
    "List": ["job"],
    "Attach": ["process", "stdout", "stderr", "exit"],
    "Wait": 3,
    "SendInput": "OK",
    "Signal": "OK",
    "Resize": "OK",
    "Forget": "OK",
    "Stat": [1, 5],
    "Files.List": [2, 1],
    "Read": "content",
    "Write": 5,
    "MakeDirectory": 5,
    "Move": 5,
    "Copy": 5,
    "Remove": "OK",
    "Link": 5,
    "SetAttributes": 5,
    "Watch": [0, 1],
    "ReadTree": "tar",
    "WriteTree": 3,
    "Ports.Wait": "OK",
    "Connect": "echo",
    "Accept": "echo",
    "no such tag": ["NOT_FOUND", "ESRCH", "guest"],
    "relative path": ["INVALID_ARGUMENT", "INVALID_FIELD", "vmpool"],
}
"""What a client reports, by method: of the replies, a few fields each."""


@attrs.frozen(kw_only=True)
class Scene:
    socket: Path
    lease_id: str


@contextlib.asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """A service, and a lease of the test's user whose guest answers what EXPECTED says."""
    listener = Listener(TcpAddress(port=4242))
    async with serving(directory, size=1) as served:
        lease = await served.coordinator.acquire(
            profile="default",
            owner=Owner(uid=os.geteuid()),
            request=LeaseRequest(name=NAME, labels={"job": "7"}),
        )
        replace_in_guest(
            served, lease.lease_id, processes=_processes(), files=_files(), ports=_ports(listener), usage=_usage
        )
        listener.connect(1)
        yield Scene(socket=served.path, lease_id=lease.lease_id)


async def _usage() -> Usage:
    return USAGE


def _processes() -> Answering:
    output: list[ProcessOutput | CommandExit] = [
        ProcessOutput(stream=OutputStream.STDOUT, position=2**40, data=b"out"),
        ProcessOutput(stream=OutputStream.STDERR, position=0, data=b"err"),
        CommandExit(status=0),
    ]
    processes = Answering(
        start=PROCESS,
        list=(PROCESS,),
        attach=Attached(PROCESS, output),
        wait=CommandExit(status=3),
        send_input=None,
        send_signal=None,
        resize=None,
        forget=None,
    )
    processes.refuses.append(("wait", ProcessRef(tag="none"), refusal("ESRCH")))
    return processes


def _files() -> Answering:
    change = FileChange(kind=FileChangeKind.CREATED, path=b"/app/a")
    return Answering(
        stat=FILE,
        list=Source([(FILE, FILE), (FILE,)], ()),
        read=Source([b"con", b"tent"], b"", info=FILE),
        write=Sink(FILE),
        edit=FILE,
        watch=Source([(change,)], ()),
        read_tree=Source([b"tar"], b""),
        write_tree=Sink(TreeSummary(members=3, size=10)),
    )


def _ports(listener: Listener) -> Answering:
    return Answering(wait=None, connect=Connection(), listen=listener)
