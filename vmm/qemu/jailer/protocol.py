"""What the service asks of its jailer, and what that answers: JSON, a message each, with the descriptors beside it."""

from __future__ import annotations

import array
import socket
from typing import TypedDict

MAX_MESSAGE = 128 * 1024
"""Bytes. A command line of QEMU's has some thousand."""

_MAX_DESCRIPTORS = 64

NAMESPACES = {
    "user": 0x10000000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "net": 0x40000000,
    "mount": 0x00020000,
}
"""By name, their CLONE_NEW… as in <linux/sched.h>."""


class Identity(TypedDict):
    """Whom it runs as."""

    uid: int
    gid: int
    groups: list[int]


class Files(TypedDict):
    """What may be used of the file system, by paths of the host. What is not there is left out."""

    programs: list[str]
    """Directories and files to read and execute, with all below them."""
    devices: list[str]
    """Files to read, write and control."""


class Request(TypedDict):
    """One program to start. Its descriptors come with the message, in the order of `descriptors`."""

    program: str
    """Its path. Empty: all is set up, and nothing executed."""
    argv: list[str]
    environment: dict[str, str]
    descriptors: list[int]
    """What number each has in the program."""
    readable: list[int]
    """Of those, by number, what it may open anew for reading."""
    writable: list[int]
    """And for writing, too."""
    entrances: list[str]
    """Files of cgroups that a process enters by writing 0 to them."""
    identity: Identity | None
    namespaces: list[str]
    files: Files
    landlock: bool
    filter: bool
    """The seccomp program that the jailer was given at its start."""
    max_file_bytes: int | None


class Answer(TypedDict, total=False):
    """With a pidfd beside it if there is a `pid`. If something failed that process is dead, and to be waited for."""

    pid: int
    stage: str
    """What failed; absent if nothing did."""
    errno: int
    text: str


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message, empty at the end, and the descriptors beside it: the caller's, for no program to inherit.

    `socket.recv_fds` lets them be inherited, whatever its flags. Raises OSError.
    """
    message, ancillary, _flags, _address = sock.recvmsg(
        MAX_MESSAGE, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // 4 * 4])
    return message, list(descriptors)
