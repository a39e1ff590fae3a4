"""`vmpool shell` in a real guest, as somebody sits at it: under tmux, which keeps the screen."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.running import RunningService, vmpool_argv
from vmm.initramfs.image import GuestImage

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

LIMIT_S: Final = 60
PAUSE_S: Final = 0.05
PROMPT: Final = "# "


@attrs.frozen
class Screen:
    """A window of tmux with one shell of this host in it."""

    server: Path
    environment: dict[str, str]

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self.server, "-f", os.devnull, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT_S,
            env=self.environment,
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        """By tmux's names: Enter, C-c."""
        self.tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        return self.tmux("capture-pane", "-p").rstrip().splitlines()

    def until(self, shown: Callable[[list[str]], bool]) -> list[str]:
        give_up_at = time.monotonic() + LIMIT_S
        while not shown(lines := self.lines()):
            assert time.monotonic() < give_up_at, "\n".join(lines)
            time.sleep(PAUSE_S)
        return lines

    def until_line(self, line: str) -> None:
        """Until one line is this and nothing else, as output is, and what is typed behind a prompt is not."""
        self.until(lambda lines: line in map(str.rstrip, lines))

    def until_prompt(self) -> None:
        self.until(lambda lines: bool(lines) and lines[-1].rstrip().endswith(PROMPT.rstrip()))


@contextlib.contextmanager
def screen(directory: Path, socket_path: Path) -> Iterator[Screen]:
    environment = os.environ | {"VMPOOL_SOCKET": str(socket_path), "PS1": "host$ ", "LC_ALL": "C.UTF-8"}
    shown = Screen(directory / "tmux", environment)
    shown.tmux("new-session", "-d", "-x", "90", "-y", "30", "bash", "--norc", "--noprofile")
    try:
        yield shown
    finally:
        shown.tmux("kill-server")


def leases(service: RunningService) -> list[str]:
    return service.command("leases", "-q").stdout.decode().split()


def vmpool_line(*words: str) -> str:
    return shlex.join(vmpool_argv(*words))


def test_a_session_at_a_terminal(service: RunningService, vm_home: Path) -> None:
    with screen(vm_home, service.socket_path) as shown:
        shown.keys(f"clear; {vmpool_line('shell', '--name', 'session')}", "Enter")
        shown.until_prompt()

        shown.keys("stty size", "Enter")
        shown.until_line("30 90")
        shown.tmux("resize-window", "-x", "100", "-y", "40")
        shown.keys("until [ \"$(stty size)\" = '40 100' ]; do :; done; stty size", "Enter")
        shown.until_line("40 100")

        shown.keys("seq 1 100 > /tmp/numbers; vi /tmp/numbers", "Enter")
        shown.until(lambda lines: lines[:39] == [str(number) for number in range(1, 40)])  # the whole window
        shown.keys("G", "dd", ":wq", "Enter")
        shown.until(lambda lines: any("/tmp/numbers" in line for line in lines))
        shown.keys("clear; tail -n 1 /tmp/numbers", "Enter")
        shown.until_line("99")

        shown.keys("clear; sh -c 'echo waiting; exec cat'", "Enter")
        shown.until_line("waiting")
        shown.keys("C-c")
        shown.until_prompt()
        shown.keys("clear; sh -c 'echo writing; exec cat > /tmp/typed'", "Enter")
        shown.until_line("writing")
        shown.keys("C-z")
        shown.until(lambda lines: any("Stopped" in line for line in lines))
        shown.keys("clear; fg", "Enter")
        shown.until(
            lambda lines: bool(lines) and lines[0].startswith("sh -c")
        )  # the shell names the job that it continues
        shown.keys("text", "Enter")
        shown.until_line("text")
        shown.keys("C-d")
        shown.until_prompt()
        shown.keys("clear; cat /tmp/typed; rm /tmp/typed", "Enter")
        shown.until_line("text")

        assert len(leases(service)) == 1
        shown.keys("exit 3", "Enter")
        shown.until(lambda lines: lines[-1].rstrip() == "host$")
        shown.keys("echo code $?", "Enter")
        shown.until_line("code 3")
    assert leases(service) == []


def test_a_client_that_is_killed_ends_its_shell_and_what_runs_in_it_and_no_more(
    service: RunningService, vm_home: Path
) -> None:
    service.command("acquire", "--name", "lasting")
    try:
        service.command("start", "lasting", "--tag", "other", "--", "sleep", "1000")
        with screen(vm_home, service.socket_path) as shown:
            shown.keys(f"clear; {vmpool_line('shell', 'lasting')} & echo $! > {vm_home}/pid; fg", "Enter")
            shown.until_prompt()
            shown.keys("sleep 2000", "Enter")
            pid = int((vm_home / "pid").read_text())
            count = "for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; echo; done"
            _until_running(service, count, sleeping={"sleep 1000", "sleep 2000"})
            os.kill(pid, 9)
            _until_running(service, count, sleeping={"sleep 1000"})
        assert len(leases(service)) == 1
    finally:
        service.command("release", "lasting")


def _until_running(service: RunningService, count: str, *, sleeping: set[str]) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    found: set[str] = set()
    while found != sleeping:
        assert time.monotonic() < give_up_at, found
        said = service.command("exec", "lasting", "--shell", "--", count).stdout.decode()
        found = {line.strip() for line in said.splitlines() if line.startswith("sleep ")}


def test_a_command_without_a_service_has_one_of_its_own(guest_image: GuestImage, vm_home: Path) -> None:
    """It leaves nothing."""
    done = subprocess.run(
        vmpool_argv("run", "--standalone", "--", "echo", "alone"),
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ | {"VMPOOL_SOCKET": str(vm_home / "none"), "TMPDIR": str(vm_home)},
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"alone\n", b"", 0)
    assert list(vm_home.iterdir()) == []
