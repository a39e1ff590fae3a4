"""The service under chaos: killed and started anew, its QEMUs killed one by one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import trio

from tests.chaos.books import Books, ViolationError
from tests.chaos.plan import Blow, Step
from tests.running import RunningService, ServiceHome
from vmm.qemu.confinement.group import GROUP_PREFIX

START_LIMIT_S: Final = 60.0

STANDSTILL_S: Final = 4.0
"""Longer than a check of an idle VM may take."""


@attrs.define(eq=False, kw_only=True)
class ChaosHost:
    home: ServiceHome
    books: Books
    service: RunningService
    """The one that runs, or is being started."""
    _seen: set[str] = attrs.field(factory=set, init=False)

    async def perform(self, step: Step) -> None:
        """Does the step, if there is something to do it to; a service runs again when this returns."""
        done = True
        match step.blow:
            case Blow.SERVICE:
                self._crash()
            case Blow.RECOVERY:
                self._crash()
                self._launch()
                await self._until_ready(limit_s=step.choice * 1.5)
                self._crash()
            case Blow.STANDSTILL:
                self.service.process.send_signal(signal.SIGSTOP)
                await trio.sleep(step.choice * STANDSTILL_S)
                self.service.process.send_signal(signal.SIGCONT)
            case Blow.TAKEOVER:
                done = await self._take_over()
            case Blow.JAILER:
                done = self._kill_jailer()
            case _:
                done = self._kill(step)
        self.books.blows[step.blow] += done
        if self.service.process.poll() is not None:
            self._launch()
            if not await self._until_ready(limit_s=START_LIMIT_S):
                raise ViolationError(f"the service was not ready within {START_LIMIT_S:g} s:\n{tail(self.home.log)}")

    def _kill(self, step: Step) -> bool:
        victims = sorted(vm_id for vm_id, blow in self._qemus().items() if blow is step.blow)
        if not victims:
            return False
        vm_id = victims[int(step.choice * len(victims))]
        self.books.killed.add(vm_id)
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):
            self.service.qemus()[vm_id].kill()
        return True

    def _kill_jailer(self) -> bool:
        """It may be starting a QEMU in this moment."""
        for child in psutil.Process(self.service.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word.endswith("jailer/__main__.py") for word in child.cmdline()):
                    child.kill()
                    return True
        return False

    def _qemus(self) -> dict[str, Blow]:
        """What each QEMU's end would be. It may have become another one's a moment later."""
        found = {}
        for vm_id in self.service.qemus():
            self._seen.add(vm_id)
            try:
                record = json.loads((self.service.runtime / "vms" / vm_id / "vm.json").read_text())
            except FileNotFoundError:
                found[vm_id] = Blow.UNRECORDED
            else:
                found[vm_id] = Blow.IDLE if record["lease"] is None else Blow.LEASED
        return found

    def _crash(self) -> None:
        self.service.crash()
        self.home.drop_notices()

    def _launch(self, *options: str) -> None:
        self.service = self.home.launch(*options)
        self.books.starts += 1

    async def _until_ready(self, *, limit_s: float) -> bool:
        """Whether it is, within the time. Raises ViolationError if it ends meanwhile."""
        with trio.move_on_after(limit_s):
            while True:
                with trio.move_on_after(0.5):
                    await trio.lowlevel.wait_readable(self.home.notices)
                    if self.home.notices.recv(4096) == b"READY=1":
                        return True
                if (code := self.service.process.poll()) is not None:
                    raise ViolationError(f"the service ended with {code} as it started:\n{tail(self.home.log)}")
        return False

    async def _take_over(self) -> bool:
        """The next one asks for it."""
        first = self.service
        self._launch("--takeover")
        code = await trio.to_thread.run_sync(first.process.wait, START_LIMIT_S)
        if code != 0 or not await self._until_ready(limit_s=START_LIMIT_S):
            raise ViolationError(f"the takeover failed, exit code {code}:\n{tail(self.home.log)}")
        return True

    async def end_of_service(self) -> None:
        """Waits for it. Raises ViolationError if it does not end well."""
        code = await trio.to_thread.run_sync(self.service.process.wait, START_LIMIT_S)
        if code != 0:
            raise ViolationError(f"the service ended with {code}:\n{tail(self.home.log)}")
        self.home.drop_notices()

    def open_files(self) -> list[str]:
        """What the service's descriptors are of."""
        links = []
        for entry in Path(f"/proc/{self.service.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(str(entry.readlink()))
        return sorted(links)

    def _groups(self) -> Iterator[Path]:
        """Cgroups of VMs that were ever seen, wherever they are."""
        ours = {f"{GROUP_PREFIX}{vm_id}" for vm_id in self._seen | self.books.of_vm.keys()}
        for place, names, _ in os.walk("/sys/fs/cgroup"):
            yield from (Path(place) / name for name in ours.intersection(names))

    def _mounts(self) -> list[str]:
        return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.home.path) in line]

    async def stop(self) -> None:
        """SIGTERM, and what may be left is looked for. Raises ViolationError."""
        self.service.process.send_signal(signal.SIGTERM)
        await self.end_of_service()
        left = [*self.service.qemus().values(), *self.service.runtime.rglob("*"), *self._groups(), *self._mounts()]
        if left:
            raise ViolationError(f"left behind: {left}")


def log_entries(log: Path) -> Iterator[dict[str, Any]]:
    """Those that are whole: a service that is killed may have been writing one."""
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:])
