"""A run of the benchmarks that is told to stop leaves no service behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import until


def socket_of(service: psutil.Process) -> str:
    """Empty if it is none, or has only just been forked."""
    return next((argument for argument in service.cmdline() if argument.endswith(".sock")), "")


async def test_sigterm_ends_the_services_that_it_started(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "rpc/empty@10", "--rounds", "100000", "--output", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:

        async def has_service() -> bool:
            try:
                return any(child.net_connections("unix") for child in children() if socket_of(child))
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                return False  # while it becomes another program, it is shown to root only

        def children() -> list[psutil.Process]:
            return psutil.Process(process.pid).children()

        await until(has_service)
        (service,) = children()
        home = Path(socket_of(service)).parent
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2
    assert b"ended by SIGTERM" in said
    assert not service.is_running()
    assert not home.exists()
