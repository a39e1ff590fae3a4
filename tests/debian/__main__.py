"""python3 -m tests.debian SUITE [OPTIONS] [-- ARGUMENTS of scripts/test]; needs Python's standard library only."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from tests.debian import namespaces
from tests.debian.root import SUITES, USER, NoRootError, add_user, copied, equip, pristine, say

REPOSITORY: Final = Path(__file__).parents[2]
EXIT_USAGE: Final = 2


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises SystemExit(2), with what is possible on standard error."""
    parser = argparse.ArgumentParser(
        prog="scripts/test-debian",
        description="Runs scripts/demo, again without a network, and scripts/test in a fresh Debian.",
        epilog="Arguments after -- go to scripts/test.",
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--as", dest="user", choices=("root", "user"), help="only as root, or as a user with sudo")
    parser.add_argument("--only", choices=("demo", "test"), help="only the demo twice, or only scripts/test")
    parser.add_argument("--fresh", action="store_true", help="make the root again that is kept in build/debian")
    parser.add_argument("--mirror", metavar="URL", help="Debian's archive, if not where this host's apt sources say")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str], *, uid: int) -> int:
    ours, theirs = list(arguments), []
    if "--" in ours:
        end = ours.index("--")
        ours, theirs = ours[:end], ours[end + 1 :]
    chosen = options(ours)
    if uid != 0:
        sys.stderr.write("scripts/test-debian makes roots and namespaces: run it as root\n")
        return EXIT_USAGE
    place = REPOSITORY / "build/debian"
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["git", "status", "--porcelain"], cwd=REPOSITORY, check=True, capture_output=True).stdout:
        say("There are changes that are not committed; only what is committed is tested")
    try:
        root = pristine(chosen.suite, place=place, mirror=chosen.mirror, fresh=chosen.fresh)
    except NoRootError as error:
        sys.stderr.write(f"scripts/test-debian: {error}\n")
        return EXIT_USAGE
    users = [name for name, kind in (("root", "root"), (USER, "user")) if chosen.user in (None, kind)]
    codes = [_run(root, place=place, user=user, only=chosen.only, arguments=theirs) for user in users]
    return int(any(codes))


def _run(pristine_root: Path, *, place: Path, user: str, only: str | None, arguments: Sequence[str]) -> int:
    with copied(pristine_root, place=place) as root:
        equip(root, repository=REPOSITORY)
        if user != "root":
            add_user(root)
        say(f"{pristine_root.name}, as {user}")
        parts = ["yes" if only in (None, part) else "no" for part in ("demo", "test")]
        command = [sys.executable, "-m", "tests.debian.inside", str(root), user, *parts, *arguments]
        return namespaces.run(command, directory=REPOSITORY)


def end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    os.umask(0o022)
    for deadly in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(deadly, end)
    sys.exit(main(sys.argv[1:], uid=os.geteuid()))
