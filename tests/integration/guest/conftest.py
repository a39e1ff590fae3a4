"""A real guest, booted once for all tests here; each test has a connection of its own, one after the other."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from vmm.guest.client import AgentClient
from vmm.initramfs.image import GuestImage

BOOT_LIMIT_S = 120


def qemu_argv(image: GuestImage, console: Path, *, agent: int, port: str = "vmpool.agent.0") -> list[str]:
    """A machine of two CPUs; `agent` is the descriptor of a listening socket."""
    return [
        *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "256"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", "console=ttyS0 cryptomgr.notests"),
        *("-serial", f"file:{console}", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={agent},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={port}"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
    ]


@pytest.fixture(scope="module")
def guest_socket(guest_image: GuestImage) -> Iterator[Path]:
    """The agent's socket of a running guest."""
    with tempfile.TemporaryDirectory(prefix="vmpool-") as home, socket.socket(socket.AF_UNIX) as listener:
        # It listens before QEMU runs, so nobody has to wait until it does.
        path = Path(home, "agent")
        listener.bind(str(path))
        listener.listen()
        argv = qemu_argv(guest_image, Path(home, "console"), agent=listener.fileno())
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()]) as process:
            listener.close()
            yield path
            process.kill()


@pytest.fixture
async def guest(guest_socket: Path, nursery: trio.Nursery) -> AsyncIterator[AgentClient]:
    with trio.fail_after(BOOT_LIMIT_S):
        client = await AgentClient.connect(await trio.open_unix_socket(guest_socket), nursery=nursery)
    yield client
    await client.aclose()
