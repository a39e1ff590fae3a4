"""A VM's directory, and connections to a QEMU that has not taken those of its last service yet."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from vmm.errors import MissingFileError, SpecError
from vmm.qemu.directory import VmDirectory
from vmm.sockets import connect, listen


@pytest.fixture
def full(vm_home: Path, leak_check: None) -> Iterator[tuple[Path, socket.socket]]:
    """A socket that listens, and has so many connections waiting that the kernel lets no more in."""
    path = vm_home / "qmp.sock"
    with contextlib.ExitStack() as connections, listen(path) as listener:
        while True:
            sock = connections.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            try:
                sock.connect(str(path))
            except BlockingIOError:
                break
        yield path, listener
    path.unlink()


async def test_a_full_queue_is_waited_for(full: tuple[Path, socket.socket]) -> None:
    path, listener = full
    async with trio.open_nursery() as nursery:
        done = trio.Event()

        async def connects() -> None:
            async with await connect(path) as stream:
                await stream.send_all(b"here")
            done.set()

        nursery.start_soon(connects)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        listener.accept()[0].close()
        await done.wait()


async def test_a_connection_that_is_given_up_is_closed(full: tuple[Path, socket.socket]) -> None:
    path, _ = full
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect, path)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_nobody_listens(vm_home: Path, leak_check: None) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(vm_home / "qmp.sock")


# -- made ----------------------------------------------------------------------------------------------------------


def test_the_directory_of_all_vms_is_made_again_when_it_was_removed(vm_home: Path) -> None:
    vms = vm_home / "vms"
    VmDirectory(vms / "vm-1").create()
    assert [path.stat().st_mode & 0o777 for path in (vms, vms / "vm-1")] == [0o700, 0o700]
    with pytest.raises(SpecError, match="exists already"):
        VmDirectory(vms / "vm-1").create()
    shutil.rmtree(vms)
    VmDirectory(vms / "vm-2").create()
    assert list(vms.iterdir()) == [vms / "vm-2"]
    shutil.rmtree(vms)


def test_what_that_is_in_is_not(vm_home: Path) -> None:
    with pytest.raises(MissingFileError, match=f"{vm_home}/gone .*create it, owned by the service's user"):
        VmDirectory(vm_home / "gone" / "vms" / "vm-1").create()
    assert list(vm_home.iterdir()) == []
