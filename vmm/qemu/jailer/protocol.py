"""The messages between the service and its jailer: one JSON object each, with descriptors beside it."""

from __future__ import annotations

import array
import socket
from typing import TypedDict

MAX_MESSAGE = 128 * 1024
"""Bytes. A command line of QEMU has a few thousand."""

_MAX_DESCRIPTORS = 64

NAMESPACES = {
    "user": 0x10000000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "net": 0x40000000,
    "mount": 0x00020000,
}
"""CLONE_NEW… flags by name, as in <linux/sched.h>."""


class Identity(TypedDict):
    """The user and groups that the program runs as."""

    uid: int
    gid: int
    groups: list[int]


class Files(TypedDict):
    """The files that may be used, by paths of the host. Missing ones are ignored."""

    programs: list[str]
    """Directories and files to read and execute, with everything below them."""
    devices: list[str]
    """Files to read, write and control."""


class Request(TypedDict):
    """One program to start. Its descriptors are sent with the message, in the order of `descriptors`."""

    program: str
    """Its path. Empty: set everything up, and execute nothing."""
    argv: list[str]
    environment: dict[str, str]
    descriptors: list[int]
    """The number of each descriptor in the program."""
    readable: list[int]
    """Of those numbers, the ones that the program may reopen for reading."""
    writable: list[int]
    """The ones that it may reopen for reading and writing."""
    entrances: list[str]
    """Cgroup files that a process enters by writing 0 to them."""
    identity: Identity | None
    namespaces: list[str]
    files: Files
    landlock: bool
    filter: bool
    """Load the seccomp program that the jailer was given at its start."""
    max_file_bytes: int | None


class Answer(TypedDict, total=False):
    """With a pidfd beside it if there is a `pid`. If a step failed, that process is dead and has to be reaped."""

    pid: int
    stage: str
    """The step that failed; absent on success."""
    errno: int
    text: str


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receives one message, empty at the end, and its descriptors, which are the caller's and not inheritable.

    `socket.recv_fds` makes them inheritable, whatever its flags. Raises OSError.
    """
    message, ancillary, _flags, _address = sock.recvmsg(
        MAX_MESSAGE, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // 4 * 4])
    return message, list(descriptors)
