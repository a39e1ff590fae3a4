"""A real service that runs by Kata's configuration file, and VMs that were given away by it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.running import RunningService, ServiceHome, service_home
from vmm.initramfs.image import GuestImage

CONFIG = """
[factory]
vm_cache_number = {number}
vm_cache_endpoint = "{endpoint}"
{factory}

[hypervisor.qemu]
path = "{qemu}"
kernel = "{image.kernel}"
initrd = "{image.initrd}"
shared_fs = "virtio-9p"
default_memory = 256
default_maxmemory = 1024
default_maxvcpus = 2

[vmpool]
agent = "{agent}"
channel = "virtio-serial"
"""


@attrs.frozen(kw_only=True)
class KataHome:
    """Where services run one after the other by one configuration, with one cache endpoint."""

    home: ServiceHome
    endpoint: Path
    config: Path

    def end(self, service: RunningService) -> None:
        """Stops a service, if it still runs. Of it only what was given away may be left, and is ended here."""
        code = service.stop() if service.process.poll() is None else service.process.returncode
        for process in service.qemus().values():
            process.kill()
        assert code == 0, self.home.log.read_text()
        assert self.home.notices.recv(4096) == b"STOPPING=1"


def kata_config(
    path: Path, *, image: GuestImage, endpoint: Path, number: int, factory: str = "", agent: str = "builtin"
) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    path.write_text(
        CONFIG.format(number=number, endpoint=endpoint, qemu=qemu, image=image, factory=factory, agent=agent)
    )


@contextmanager
def kata_home(
    image: GuestImage,
    *,
    number: int,
    factory: str = "",
    agent: str = "builtin",
    command: tuple[str, ...] = ("serve",),
) -> Iterator[KataHome]:
    argv = (*command, "--kata-config")
    with service_home("", image_directory=image.kernel.parent, command=argv) as home:
        endpoint, config = home.path / "cache" / "cache.sock", home.path / "vmpool.toml"
        kata_config(
            config,
            image=image,
            endpoint=endpoint,
            number=number,
            factory=factory.format(place=home.path / "template"),
            agent=agent,
        )
        yield KataHome(home=home, endpoint=endpoint, config=config)


def qmp(path: str, *commands: str, **arguments: Any) -> list[Any]:
    """What a QEMU answers; the arguments are the last command's. Blocks, ten seconds at most."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0)
        connection.connect(path)
        with connection.makefile("rw") as stream:
            assert "QMP" in json.loads(stream.readline())
            answers = []
            for command in ("qmp_capabilities", *commands):
                given = arguments if command == commands[-1] else {}
                stream.write(json.dumps({"execute": command, "arguments": given}) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    assert "event" in answer, answer
                answers.append(answer["return"])
    return answers[1:]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
