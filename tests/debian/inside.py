"""python3 -m tests.debian.inside ROOT USER DEMO TEST [ARGUMENTS of scripts/test]: the first process of the namespaces.

It mounts what a system has below the root, runs the steps as the user, and says what they left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.debian.archive import passed_on
from tests.debian.leftovers import Contents, look, new_files, new_mounts, processes
from tests.debian.namespaces import as_first_process
from tests.debian.root import say

OFFLINE: Final = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Place:
    """A user's checkout in a root."""

    root: Path
    user: str

    @property
    def home(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"

    @property
    def checkout(self) -> Path:
        return self.root / self.home[1:] / "vmpool"

    def run(self, command: Sequence[str], *, directory: str, before: Sequence[str] = ()) -> int:
        """The exit code of a command of the user's."""
        path = f"/usr/local/sbin:/usr/sbin:/sbin:{_SYSTEM_PATH}" if self.user == "root" else _SYSTEM_PATH
        environment = {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "PATH": path, "LANG": "C.UTF-8"}
        environment |= passed_on(os.environ)
        enter = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root), "env", "-i", f"--chdir={directory}"]
        variables = [f"{name}={value}" for name, value in environment.items()]
        return subprocess.run([*before, *enter, *variables, *command], check=False).returncode


def mount_system(root: Path) -> None:
    """Devices and cgroups are the host's; the rest is the root's own, and goes with the mount namespace."""
    _mount("--bind", root, root)  # so that "/" is a mount, as everywhere
    for name in ("dev", "sys"):
        _mount("--rbind", f"/{name}", root / name)
    _mount("-t", "proc", "proc", root / "proc")
    _mount("-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", root / "dev/shm")
    _mount("-t", "devpts", "-o", "gid=5,mode=620,ptmxmode=666", "devpts", root / "dev/pts")
    _mount("-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "tmpfs", root / "run")


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def steps(place: Place, *, demo: bool, test: bool, arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What was run, and its exit code."""
    checkout = f"{place.home}/vmpool"
    if demo:
        yield "scripts/demo", place.run(["scripts/demo"], directory=checkout)
        yield "scripts/demo without a network", place.run(["scripts/demo"], directory=checkout, before=OFFLINE)
    if test:
        yield " ".join(["scripts/test", *arguments]), place.run(["scripts/test", *arguments], directory=checkout)


def left(place: Place, before: Contents) -> list[str]:
    """What is there that was not: a line each."""
    after = look(place.root, checkout=place.checkout)
    ours = frozenset({1, os.getpid()})
    return [
        *(f"process {process}" for process in processes(place.root / "proc", ours=ours)),
        *(f"mount {mount}" for mount in new_mounts(before, after)),
        *(f"file /{file}" for file in new_files(before, after)),
        *(f"in the checkout {line}" for line in _untracked(place)),
    ]


def _untracked(place: Place) -> list[str]:
    command = ["git", "-c", f"safe.directory={place.checkout}", "-C", str(place.checkout), "status", "--porcelain"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def work(place: Place, *, demo: bool, test: bool, arguments: Sequence[str]) -> int:
    """Returns 1 if a step failed or left something."""
    mount_system(place.root)
    quiet = ("-c", "init.defaultBranch=main", "-c", "advice.detachedHead=false")
    if place.run(["git", *quiet, "clone", "--quiet", "/vmpool.bundle", "vmpool"], directory=place.home) != 0:
        return 1
    before = look(place.root, checkout=place.checkout)
    summary = []
    good = True
    running = steps(place, demo=demo, test=test, arguments=arguments)
    while True:
        began = time.monotonic()
        step = next(running, None)
        if step is None:
            break
        name, code = step
        remains = left(place, before)
        summary.append(f"{name}: exit code {code}, {time.monotonic() - began:.0f} s; left: {len(remains) or 'nothing'}")
        summary += [f"    {line}" for line in remains]
        good = good and code == 0 and not remains
    for line in summary:
        say(line)
    return 0 if good else 1


def main(root: str, user: str, demo: str, test: str, *arguments: str) -> int:
    worker_pid = os.fork()
    if worker_pid:
        return as_first_process(worker_pid)
    return work(Place(Path(root), user), demo=demo == "yes", test=test == "yes", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
