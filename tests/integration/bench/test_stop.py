"""`vmpool bench` that is told to stop leaves no service behind."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil

from tests.running import vmpool_argv
from tests.waiting import until


async def test_sigterm_ends_the_services_that_it_started(tmp_path: Path) -> None:
    process = subprocess.Popen(
        vmpool_argv("bench", "--only", "rpc/empty@10", "--rounds", "100000", "--output", str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:

        async def has_service() -> bool:
            try:
                return any(service.net_connections("unix") for service in psutil.Process(process.pid).children())
            except psutil.AccessDenied:
                return False  # as long as it is becoming another program, it is shown to root only

        await until(has_service)
        (service,) = psutil.Process(process.pid).children()
        (home,) = {Path(argument).parent for argument in service.cmdline() if argument.endswith(".sock")}
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2
    assert b"ended by SIGTERM" in said
    assert not service.is_running()
    assert not home.exists()
