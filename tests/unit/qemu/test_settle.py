"""A process is at rest when it has nothing to do, not when it is not given a CPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vmm.qemu import settle
from vmm.qemu.settle import wait_until_idle


@contextlib.contextmanager
def program(text: str, *, nice: int = 0) -> Iterator[int]:
    """A process on the first of our CPUs that has said that it runs. Its pid."""
    cpu = min(os.sched_getaffinity(0))
    setup = f"import os, time; os.sched_setaffinity(0, [{cpu}]); os.nice({nice}); print(flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", setup + text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "SETTLE_LIMIT_S", 2.0)


async def test_a_process_that_waits_is_at_rest() -> None:
    with program("time.sleep(1000)") as pid:
        assert await wait_until_idle(pid)


async def test_a_process_that_is_gone_is_at_rest() -> None:
    with program("pass") as pid:
        pass
    assert await wait_until_idle(pid)


async def test_a_process_that_works_is_not_at_rest_though_it_is_given_next_to_nothing() -> None:
    busy = "while True: pass"
    with program(busy), program(busy), program(busy, nice=19) as pid:
        assert not await wait_until_idle(pid)
