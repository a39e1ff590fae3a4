"""A real service in a process of its own, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.calls import Caller, open_caller
from bench.case import Bench, BenchError
from pool.cli.output import quoted
from vmpool.client import ProfileStatus

READY_LIMIT_S: Final = 120.0
QUIET_LIMIT_S: Final = 300.0
_POLL_S: Final = 0.02


@attrs.define(eq=False, kw_only=True)
class Home:
    """A place for consecutive services with the same configuration, socket and runtime directory."""

    directory: Path
    bench: Bench
    _notices: socket.socket
    process: trio.Process | None = None

    @property
    def socket_path(self) -> Path:
        return self.directory / "run" / "s.sock"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    async def start(self) -> None:
        """Returns when the service reports that it is ready."""
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-m", "pool.cli.main", "serve"),
                    *("--config", str(self.directory / "vmpool.toml"), "--socket", str(self.socket_path)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.bench.checkout,
                start_new_session=True,  # Ctrl-C is for this process, which then stops the service cleanly
                env=os.environ
                | {
                    "NOTIFY_SOCKET": str(self.directory / "notify"),
                    "VMPOOL_IMAGE_DIR": str(self.bench.image_directory),
                },
            )
        await self._until_ready(self.process)

    async def _until_ready(self, process: trio.Process) -> None:
        async def fail_at_its_end() -> None:
            await process.wait()
            raise BenchError(f"the service did not start:\n{self.tail()}")

        notices = trio.socket.from_stdlib_socket(self._notices)
        with trio.fail_after(READY_LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_at_its_end)
                while b"READY=1" not in await notices.recv(4096):
                    pass
                nursery.cancel_scope.cancel(reason="the service is ready")

    async def stop(self) -> None:
        """SIGTERM, and wait. Raises BenchError if the service fails or leaves a VM."""
        process, self.process = self.process, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            process.send_signal(signal.SIGTERM)
            await process.wait()
        if process.returncode != 0:
            raise BenchError(f"the service ended with exit code {process.returncode}:\n{self.tail()}")
        left = sorted(str(path) for path in (self.directory / "run").glob("vms/*"))
        if left:
            raise BenchError(f"the service left behind: {left}")

    async def kill(self) -> None:
        """SIGKILL; its VMs live on for the next one."""
        assert self.process is not None, "start() comes first"
        process, self.process = self.process, None
        process.kill()
        await process.wait()

    def pid(self) -> int:
        assert self.process is not None, "start() comes first"
        return self.process.pid

    def tail(self) -> str:
        return quoted(self.log.read_text(errors="replace")[-2000:])


@contextlib.asynccontextmanager
async def service_home(bench: Bench, config: str, *, name: str = "s") -> AsyncIterator[Home]:
    """A home without a service. A service that runs at the end is stopped; the services' files are removed."""
    directory = bench.home / name
    directory.mkdir()
    (directory / "vmpool.toml").write_text(config)
    with contextlib.ExitStack() as cleanup:
        notices = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        notices.bind(str(directory / "notify"))
        home = Home(directory=directory, bench=bench, notices=notices)
        try:
            yield home
        finally:
            try:
                await home.stop()
            finally:
                _remove(directory)


def _remove(directory: Path) -> None:
    """Removes the template that a service keeps. Anything else stays, and is reported as left behind."""
    for path in ("run/templates/*/*", "run/templates/*", "run/templates", "run", "vmpool.toml", "notify", "log"):
        for found in sorted(directory.glob(path)):
            if found.is_dir() and not found.is_symlink():
                with contextlib.suppress(OSError):
                    found.rmdir()
            else:
                found.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


@contextlib.asynccontextmanager
async def running(bench: Bench, config: str, *, name: str = "s") -> AsyncIterator[tuple[Home, Caller]]:
    """A service that runs, and a connection to it."""
    async with service_home(bench, config, name=name) as home:
        await home.start()
        async with open_caller(home.socket_path) as caller:
            yield home, caller


def profile(bench: Bench, *, name: str = "default", **settings: object) -> str:
    """A profile's table, with the machine of the run."""
    values = {"accelerator": bench.machine.accelerator.value, "max_vcpus": 4, "max_memory_mib": 1024} | settings
    lines = [f"[profiles.{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str | Path) else str(value).lower()


def settled(status: ProfileStatus, *, shells: int = 0) -> bool:
    """Whether the pool is full, and no VM is being made or ended."""
    busy = status.producing or status.stopping or status.handing_out or status.leased or status.waiting
    return status.producer.ready and status.ready == status.size and status.shells >= shells and not busy


async def until(home: Home, caller: Caller, done: Callable[[ProfileStatus], bool]) -> None:
    """Waits until `done` holds for every profile. Raises BenchError after QUIET_LIMIT_S."""
    with trio.move_on_after(QUIET_LIMIT_S):
        while True:
            status = await caller.client.status()
            if all(done(each) for each in status.profiles):
                return
            await trio.sleep(_POLL_S)
    raise BenchError(f"the service does not come to rest within {QUIET_LIMIT_S:g} s: {status.profiles}\n{home.tail()}")


async def resized(home: Home, caller: Caller, size: int) -> None:
    """Resizes the default profile's pool, and returns when it is full and at rest."""
    await caller.resize(size)
    await until(home, caller, lambda status: settled(status) and status.size == size)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads: its CPU-time clock, see clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def memory_bytes(pid: int) -> dict[str, int]:
    """Of /proc/pid/smaps_rollup: Rss, Pss, Private_Dirty and the others, in bytes."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return found


def qemu_pids(home: Home) -> list[int]:
    """The pids of the service's running VMs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                command = (entry / "cmdline").read_bytes()
                if f"{home.directory}/run/vms/".encode() in command and b"qemu-system" in command.split(b"\0")[0]:
                    found.append(int(entry.name))
    return found
