"""The host that the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from bench.results import Host


def describe_host(*, qemu: str, accelerator: str) -> Host:
    return Host(
        cpu=_field(Path("/proc/cpuinfo"), "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) // 1024,
        kernel=platform.release(),
        python=platform.python_version(),
        qemu=qemu,
        accelerator=accelerator,
        load=os.getloadavg()[0],
    )


def revision(checkout: Path) -> str:
    """Git's revision; "unknown" outside a git checkout, or without git."""
    try:
        head = _git(checkout, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, check=True, text=True)  # noqa: S607
    return done.stdout.strip()


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
