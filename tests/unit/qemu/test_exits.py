"""How a QEMU ended, as those hear it who wait for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.unit.qemu.test_qmp_client import ScriptedQemu
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.directory import VmDirectory
from vmm.qemu.instance import Instance
from vmm.qemu.process import QemuProcess
from vmm.words.processes import ExitReport


@pytest.fixture
async def dead(vm_home: Path) -> AsyncIterator[Instance]:
    """One whose process has ended; nobody is connected to it."""
    home = VmDirectory(vm_home / "vm-1")
    home.root.mkdir()
    argv = [sys.executable, "-c", "raise SystemExit(3)"]
    process = QemuProcess.spawn(argv, log=home.qemu_log)
    instance = Instance(vm_id="vm-1", directory=home, process=process, group=VmGroup(), argv=argv)
    yield instance
    await instance.stop()


async def test_who_waits_for_the_last_words_of_a_qemu_may_see_it_disconnected(
    dead: Instance, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(dead.directory.qmp_socket))
        listener.listen()

        async def answer() -> None:
            accepted, _ = await listener.accept()
            with accepted:
                await ScriptedQemu(trio.SocketStream(accepted)).greet()
                await trio.sleep_forever()

        nursery.start_soon(answer)
        qmp = await dead.connect_qmp(nursery=nursery)
        waiting, ended = trio.Event(), trio.Event()

        async def wait_ended() -> None:
            waiting.set()
            await ended.wait()

        monkeypatch.setattr(qmp, "wait_ended", wait_ended)
        reports: list[ExitReport] = []

        async def wait_exited() -> None:
            reports.append(await dead.wait_exited())

        async with trio.open_nursery() as waiters:
            waiters.start_soon(wait_exited)
            await waiting.wait()
            await dead.disconnect()
            ended.set()
    assert [report.status for report in reports] == [3]
