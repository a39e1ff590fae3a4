"""A real service in a process of its own, and what it has left on the host: seen from outside."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil

from tests.logged_errors import errors_in
from vmm.qemu.confinement.group import VmGroup

READY_LIMIT_S = 60
STOP_LIMIT_S = 60

VMPOOL = (sys.executable, "-W", "error", "-m", "pool.cli.main")
"""The command of this checkout."""


@attrs.frozen(kw_only=True)
class RunningService:
    """`vmpool serve` with a runtime directory of its own."""

    process: subprocess.Popen[bytes]
    socket_path: Path
    log: Path
    program: tuple[str, ...] = VMPOOL

    @property
    def runtime(self) -> Path:
        return self.socket_path.parent

    def qemus(self) -> dict[str, psutil.Process]:
        """This service's QEMU processes, by VM id; zombies are none."""
        return qemus_of(self.runtime)

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def stop(self) -> int:
        """SIGTERM, and wait. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT_S)

    def crash(self) -> None:
        """SIGKILL, and wait. Whoever was connected learns of it by the time this returns."""
        self.process.kill()
        self.process.wait(STOP_LIMIT_S)

    def command(
        self, *arguments: str, stdin: bytes | None = None, limit_s: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `vmpool ARGUMENTS` against this service."""
        return subprocess.run(
            [*self.program, *arguments],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            check=False,
            timeout=limit_s,
            env=os.environ | {"VMPOOL_SOCKET": str(self.socket_path)},
        )


def qemus_of(runtime: Path) -> dict[str, psutil.Process]:
    """The QEMU processes of services with that runtime directory, by VM id; zombies are none."""
    found = {}
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if argv and "qemu-system" in argv[0] and any(f"{runtime}/" in argument for argument in argv):
            found[argv[argv.index("-name") + 1].removeprefix("guest=").partition(",")[0]] = process
    return found


def end_remains(runtime: Path) -> None:
    """Ends what services left that a failing test killed or gave up: their VMs live on without them."""
    qemus = qemus_of(runtime).values()
    for process in qemus:
        process.kill()
    psutil.wait_procs(qemus, STOP_LIMIT_S)
    for record in runtime.glob("vms/*/cgroups"):
        for directory in VmGroup.recorded_in(record).directories:
            with contextlib.suppress(FileNotFoundError):
                _remove(directory)


def _remove(group: Path) -> None:
    """The kernel takes a dead process out of its group a moment after its end."""
    for _ in range(1000):
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.005)
        else:
            return


def vmpool_argv(*arguments: str) -> list[str]:
    return [*VMPOOL, *arguments]


def at_a_terminal(argv: list[str]) -> list[str]:
    """Ctrl-C reaches it, even if the tests were started in the background, where a shell has it ignored."""
    return ["env", "--default-signal=INT", *argv]


@attrs.frozen(kw_only=True)
class ServiceHome:
    """Where services run one after the other, with the same configuration, socket and runtime directory."""

    path: Path
    image_directory: Path
    notices: socket.socket
    command: tuple[str, ...] = ("serve", "--config")
    """What starts a service; the configuration comes next."""
    prefix: tuple[str, ...] = ()
    """What executes all of that, and has its pid."""
    program: tuple[str, ...] = VMPOOL

    @property
    def log(self) -> Path:
        """Of all of them, the latest at the end."""
        return self.path / "log"

    def launch(self, *options: str) -> RunningService:
        """A service that has only just been started, with these options more. Whoever started it ends it."""
        socket_path = self.path / "run" / "s.sock"
        config = self.path / "vmpool.toml"
        with self.log.open("ab") as log:
            return RunningService(
                process=subprocess.Popen(
                    [*self.prefix, *self.program, *self.command, str(config), "--socket", str(socket_path), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ
                    | {
                        "NOTIFY_SOCKET": str(self.path / "notify"),
                        "VMPOOL_IMAGE_DIR": str(self.image_directory),
                    },
                ),
                socket_path=socket_path,
                log=self.log,
                program=self.program,
            )

    def start(self) -> RunningService:
        """A service, ready for calls. Whoever started it ends it."""
        service = self.launch()
        try:
            self._wait_until_told_or(service.process)
            assert self.notices.recv(4096) == b"READY=1", self.log.read_text()
        except BaseException:
            service.process.kill()
            service.process.wait()
            raise
        return service

    def _wait_until_told_or(self, process: subprocess.Popen[bytes]) -> None:
        """Fails with the log if the process ends first."""
        ended = os.pidfd_open(process.pid)
        try:
            readable, _, _ = select.select([self.notices.fileno(), ended], [], [], READY_LIMIT_S)
        finally:
            os.close(ended)
        assert self.notices.fileno() in readable, self.log.read_text()

    def drop_notices(self) -> None:
        """Of services that were killed: nobody can tell how far they came."""
        self.notices.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.notices.recv(4096)
        self.notices.settimeout(READY_LIMIT_S)

    def end(self, service: RunningService) -> None:
        """Stops a service, if it still runs. Nothing of it may be left but the runtime directory, if it found one."""
        code = service.stop() if service.process.poll() is None else service.process.returncode
        left = service.qemus()
        for process in left.values():
            process.kill()
        assert code == 0, self.log.read_text()
        assert left == {}, f"QEMU processes left: {left}"
        found = list(service.runtime.rglob("*"))
        assert found == [], f"left in the runtime directory: {found}"
        assert self.notices.recv(4096) == b"STOPPING=1"


@contextmanager
def service_home(
    config: str,
    *,
    image_directory: Path,
    command: tuple[str, ...] = ("serve", "--config"),
    program: tuple[str, ...] = VMPOOL,
    logs_error: tuple[str, ...] = (),
) -> Iterator[ServiceHome]:
    """No service may log an ERROR but those that these patterns announce."""
    with tempfile.TemporaryDirectory(prefix="vmpool-") as name:
        home = Path(name)
        (home / "vmpool.toml").write_text(config)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(home / "notify"))
            notices.settimeout(READY_LIMIT_S)
            try:
                yield ServiceHome(
                    path=home, image_directory=image_directory, notices=notices, command=command, program=program
                )
            finally:
                end_remains(home / "run")
        if (log := home / "log").exists():
            errors = errors_in(log, announced=logs_error)
            assert not errors, "ERROR in the log:\n" + "\n".join(errors)


@contextmanager
def running_service(config: str, *, image_directory: Path) -> Iterator[RunningService]:
    """A service, ready for calls. At the end it is stopped, and nothing of it may be left."""
    with service_home(config, image_directory=image_directory) as home:
        service = home.start()
        try:
            yield service
        finally:
            home.end(service)
        assert not service.runtime.exists()
