"""Commands in mount and process namespaces of their own: with their first process, all others and all mounts go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_ENTER: Final = (
    *("setpriv", "--pdeathsig", "KILL"),  # should we be killed
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--"),
)


def run(command: Sequence[str], *, directory: Path) -> int:
    """Its exit code. It has a session of its own: Ctrl-C reaches us alone, and ends the namespaces."""
    process = subprocess.Popen([*_ENTER, *command], cwd=directory, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def as_first_process(worker_pid: int) -> int:
    """Reaps what the namespace's processes leave behind until the worker has ended. Returns the worker's exit code."""
    while True:
        pid, status = os.wait()
        if pid == worker_pid:
            return os.waitstatus_to_exitcode(status)
