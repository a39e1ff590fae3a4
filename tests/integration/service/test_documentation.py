"""What the README says of the default guest, and what it shows, with a real VM."""

from __future__ import annotations

import re

import pytest

from tests.documentation import EXAMPLES
from tests.running import RunningService


async def test_a_file_and_a_command(service: RunningService) -> None:
    (line,) = await EXAMPLES["README.md 1"].run(service.socket_path)
    assert re.fullmatch(r"0 b'42\\n' [0-9.e-]+", line)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("ls /sys/class/net", "lo\n"),
        ("tail -n +3 /proc/partitions", ""),
        ("ls /usr/bin | grep -x -e pip -e pip3 -e apt -e apt-get", ""),
        (
            "for name in ssl sqlite3 pip venv; do python3 -c import\\ $name 2>/dev/null && echo $name; done; true",
            "",
        ),
        ("python3 -c 'import asyncio, ctypes, hashlib, json, socket, subprocess, zoneinfo; print(1)'", "1\n"),
    ],
    ids=["network", "disk", "installers", "modules that are left out", "modules that are there"],
)
def test_what_the_default_guest_lacks(service: RunningService, script: str, found: str) -> None:
    done = service.command("run", "--", "sh", "-c", script)
    assert (done.stdout.decode(), done.stderr) == (found, b"")
