"""What the README says of the default guest, and what it shows, with a real VM."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.documentation import EXAMPLES
from tests.documented_commands import CHECKOUT, blocks
from tests.running import RunningService

REPORT = """\
import os, sys

print(os.environ["CI"], len(os.environ["TOKEN"]), flush=True)
print("1 of 2 failed", file=sys.stderr, flush=True)
os.mkdir("out")
open("out/report.txt", "w").write("1 of 2\\n")
sys.exit(1)
"""
"""What somebody's run_tests.py might do."""


async def test_the_first_screen(service: RunningService) -> None:
    length, server = await EXAMPLES["README.md 1"].run(service.socket_path)
    assert length == str(len("secret"))
    assert re.fullmatch(r"the guest's server is at http://127\.0\.0\.1:\d+/", server)


async def test_untrusted_code(service: RunningService) -> None:
    lines = await EXAMPLES["docs/tasks/untrusted-code.md 1"].run(service.socket_path)
    assert lines == ["0 done", '{"sum": 6}']


async def test_how_untrusted_code_ends(service: RunningService) -> None:
    lines = await EXAMPLES["docs/tasks/untrusted-code.md 2"].run(service.socket_path)
    assert lines == ["3", "11", "True", "MemoryError", r"True b'y\ny\n'", "/etc/passwd"]


async def test_a_ci_job(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "run_tests.py").write_text(REPORT)
    job = EXAMPLES["docs/tasks/ci-job.md 1"]
    done = await job.end(service.socket_path, directory=tmp_path, environment={"TOKEN": "secret"})
    assert sorted(done.stdout.decode().splitlines()) == ["1 of 2 failed", "true 6"]
    assert (done.returncode, done.stderr) == (1, b"")
    assert (tmp_path / "artefacts" / "report.txt").read_text() == "1 of 2\n"


async def test_a_ci_job_that_is_ended_by_a_signal(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "run_tests.py").write_text("import os; os.kill(os.getpid(), 9)")
    job = EXAMPLES["docs/tasks/ci-job.md 1"]
    done = await job.end(service.socket_path, directory=tmp_path, environment={"TOKEN": "secret"})
    assert (done.returncode, done.stderr) == (1, b"the command was ended by signal 9\n")


async def test_a_ci_job_that_is_found_again(service: RunningService) -> None:
    lines = await EXAMPLES["docs/tasks/ci-job.md 2"].run(service.socket_path)
    assert lines == ["step 1", "step 2", "step 3", "status 3"]


def typed(service: RunningService, lines: Iterable[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of these lines, where `vmpool` is the checkout's."""
    script = "\n".join([f'vmpool() {{ {shlex.join(service.program)} "$@"; }}', *lines])
    return subprocess.run(
        ["bash", "-uc", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=directory,
        env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path), "TOKEN": "secret", "PYTHONPATH": str(CHECKOUT)},
    )


def lines_of(page: str, first: str) -> list[str]:
    """Of the shell block that has this line."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    (found,) = [lines for block in blocks(text) if first in (lines := list(block.values()))]
    return found


def test_a_ci_job_from_the_command_line(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "run_tests.py").write_text(REPORT)
    done = typed(service, lines_of("docs/tasks/ci-job.md", "set -e"), tmp_path)
    assert (done.returncode, done.stderr) == (1, "1 of 2 failed\n")
    assert re.fullmatch(r"lease-[0-9a-f]+\ntrue 6\n", done.stdout)
    assert (tmp_path / "artefacts" / "report.txt").read_text() == "1 of 2\n"


def test_untrusted_code_from_the_command_line(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import os; print(os.getuid())")
    page = (CHECKOUT / "docs/tasks/untrusted-code.md").read_text(encoding="utf-8")
    done = typed(service, re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


def test_the_commands_of_the_readme_in_a_lease(service: RunningService) -> None:
    words = re.compile(r"vmpool (acquire|cp|ls|start|wait-port|logs|release)\b")
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(text) for line in block.values() if words.search(line)]
    done = typed(service, ["set -e", *lines], CHECKOUT)
    listed, process = done.stdout.splitlines()[:2]
    assert (done.returncode, listed, process) == (0, "README.md", "1"), done.stderr


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
