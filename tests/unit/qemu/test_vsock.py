"""CIDs and connections of vsock, with the device and the sockets replaced: few hosts have them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.virtual_time import in_virtual_time
from vmm.devices.vsock import AGENT_PORT, FIRST_CID, LAST_CID, check_vsock, connect_vsock, reserve_vsock
from vmm.errors import AgentUnreachableError, MissingFileError, SpecError
from vmm.words.processes import ExitReport


class Host:
    """Knows which CIDs are taken, as the kernel does."""

    def __init__(self, *taken: int) -> None:
        self.taken = set(taken)
        self.fds: list[int] = []

    def assign(self, fd: int, cid: int) -> None:
        os.fstat(fd)
        self.fds.append(fd)
        if cid in self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.taken.add(cid)


def numbers(*wanted: int) -> Callable[[int, int], int]:
    source = iter(wanted)

    def draw(low: int, high: int) -> int:
        assert (low, high) == (FIRST_CID, LAST_CID)
        return next(source)

    return draw


def test_a_cid_that_is_taken_is_not_used() -> None:
    host = Host(7, 8)
    with reserve_vsock(device=Path("/dev/null"), assign=host.assign, draw=numbers(7, 8, 9)) as vsock:
        assert vsock.cid == 9
        assert set(host.fds) == {vsock.fd}, "all are tried on what QEMU inherits"
        os.fstat(vsock.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(vsock.fd)


def test_a_host_without_a_free_cid_is_told_from_one_that_refuses() -> None:
    host = Host(7)
    with pytest.raises(SpecError, match="CIDs in a row are taken"):
        reserve_vsock(device=Path("/dev/null"), assign=host.assign, draw=lambda _low, _high: 7).__enter__()

    def refuse(fd: int, cid: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        reserve_vsock(device=Path("/dev/null"), assign=refuse, draw=numbers(7)).__enter__()
    for fd in host.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_host_without_vsock_is_told_which_module_to_load(tmp_path: Path) -> None:
    for attempt in (check_vsock, lambda device: reserve_vsock(device=device).__enter__()):
        with pytest.raises(MissingFileError, match=r"^channel: .* `modprobe vhost_vsock`"):
            attempt(tmp_path / "vhost-vsock")


class Guest:
    """Does not listen at first."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)
        self.asked: list[tuple[int, int]] = []
        self.ends: list[socket.socket] = []

    async def open(self, cid: int, port: int) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        self.asked.append((cid, port))
        if self._errors:
            raise OSError(self._errors.pop(0), "not yet")
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        ours.setblocking(False)
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))


async def never() -> ExitReport:
    await trio.sleep_forever()
    raise AssertionError


@in_virtual_time
async def test_a_guest_that_boots_is_tried_until_it_listens() -> None:
    guest = Guest(errno.ETIMEDOUT, errno.ENODEV, errno.ECONNRESET, errno.ECONNRESET)
    stream = await connect_vsock(9, gone=never, open_stream=guest.open)
    [theirs] = guest.ends
    await stream.send_all(b"hello")
    assert theirs.recv(5) == b"hello"
    assert guest.asked == [(9, AGENT_PORT)] * 5
    await stream.aclose()
    theirs.close()


@in_virtual_time
async def test_a_guest_whose_qemu_dies_is_not_waited_for() -> None:
    async def die() -> ExitReport:
        await trio.sleep(3)
        return ExitReport(signal=9)

    with pytest.raises(AgentUnreachableError, match="QEMU is gone: killed by signal 9"):
        await connect_vsock(9, gone=die, open_stream=Guest(*[errno.ECONNRESET] * 1000).open)
    assert trio.current_time() == 3


@in_virtual_time
async def test_what_does_not_pass_by_itself_is_told_at_once() -> None:
    with pytest.raises(AgentUnreachableError, match="modprobe vhost_vsock"):
        await connect_vsock(9, gone=never, open_stream=Guest(errno.EAFNOSUPPORT).open)
    assert trio.current_time() == 0


@in_virtual_time
async def test_giving_up_leaves_no_connection() -> None:
    with trio.move_on_after(10) as scope:
        await connect_vsock(9, gone=never, open_stream=Guest(*[errno.ECONNRESET] * 1000).open)
    assert scope.cancelled_caught
