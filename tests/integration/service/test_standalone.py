"""A service of a program's own: there for the block, and gone with the program, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import vmpool
import vmpool.sync
from tests.leaks import nothing_left
from tests.unit.sdk.faces import FACES, Play

ROOT = Path(vmpool.__file__).parents[1]

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def place(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private directories are made; nothing may be left in it."""
    monkeypatch.setattr(tempfile, "tempdir", str(vm_home))
    with nothing_left(vm_home):
        yield vm_home


@pytest.mark.parametrize("play", FACES.values(), ids=FACES)
def test_it_serves_for_the_length_of_the_block(play: Play[Any], place: Path) -> None:
    async def scenario(face: Any) -> Any:
        async with face.standalone(size=0, profile={"memory_mib": 128, "min_ready": 0}) as pool:
            return mode_of_only(place), (await pool.status()).profiles[0].memory_mib

    assert play(scenario) == (0o700, 128)


def mode_of_only(place: Path) -> int:
    (directory,) = place.iterdir()
    return directory.stat().st_mode & 0o777


def test_it_leases_vms() -> None:
    with vmpool.sync.standalone() as pool, pool.vm() as vm:
        assert vm.run(["echo", "hello"], timeout=30).stdout == "hello\n"


def test_what_it_says_when_it_does_not_start() -> None:
    with pytest.raises(vmpool.ServiceUnavailableError, match=r"ended with status 2.*vcpus"):
        vmpool.sync.standalone(profile={"vcpus": -1})


def test_it_ends_with_a_program_that_is_killed(place: Path) -> None:
    script = (
        "import tempfile, time, sys, vmpool.sync\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "with vmpool.sync.standalone(size=0, profile={'min_ready': 0}) as pool:\n"
        "    print(pool.status().pid, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as program:
        assert program.stdout is not None
        service = psutil.Process(int(program.stdout.readline()))
        program.send_signal(signal.SIGKILL)
    psutil.wait_procs([service], LIMIT_S)
    give_up_at = time.monotonic() + LIMIT_S
    while list(place.iterdir()) and time.monotonic() < give_up_at:
        time.sleep(0.01)
    assert not service.is_running()
