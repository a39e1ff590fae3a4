"""A VM whose files cannot be read when it is taken over: nothing of it is kept open."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from vmm.devices.console import console_log
from vmm.errors import AttachError
from vmm.qemu import process as process_module
from vmm.qemu.attach import attach
from vmm.qemu.directory import VmDirectory
from vmm.qemu.instance import Instance
from vmm.qemu.process import QemuProcess, start_time_of
from vmm.words.processes import ProcessIdentity

UUID = "6f0c1f4e-9d6b-4c0e-8f7e-2f1d8a3c5b17"


@attrs.frozen
class Running:
    """A process with a VM's command line, whose record of its cgroup is damaged."""

    directory: Path
    identity: ProcessIdentity


@pytest.fixture
def running(vm_home: Path) -> Iterator[Running]:
    home = VmDirectory(vm_home / "vm-1")
    home.root.mkdir()
    os.mkfifo(home.cgroups)  # no file that can be read
    argv = ["sh", "-c", "echo; read line", "-uuid", UUID, "-add-fd", f"fd=3,set=0,opaque={console_log(home.root)}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # by now /proc has its command line
        started = start_time_of(process.pid)
        assert started is not None
        try:
            yield Running(home.root, ProcessIdentity(pid=process.pid, start_time=started))
            assert process.poll() is None, "it was not touched"
        finally:
            process.kill()
    shutil.rmtree(home.root)


async def test_an_instance_is_not_adopted(running: Running) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        Instance.adopt(vm_id="vm-1", directory=running.directory, identity=running.identity)


async def test_nor_attached_to(running: Running, nursery: trio.Nursery) -> None:
    with pytest.raises(AttachError, match="not a regular file"):
        await attach(vm_id="vm-1", directory=running.directory, uuid=UUID, nursery=nursery)


async def test_a_process_of_which_proc_tells_nothing_is_not_adopted(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_pid: int) -> int | None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(process_module, "start_time_of", fail)
    with pytest.raises(OSError, match="Too many open files"):
        QemuProcess.adopt(running.identity, log=running.directory / "log")
