"""A Debian root: made once by debootstrap, kept as it is, and copied for each use."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.debian import namespaces
from tests.debian.archive import INDEX_TARGETS, apt_settings, source, sources
from tests.debian.leftovers import APT_HOOK

SUITES: Final = ("bookworm", "trixie", "testing")
USER: Final = "tester"
_INCLUDED: Final = ("ca-certificates", "git", "passwd", "python3", "sudo")
"""What the README takes for granted."""
_CERTIFICATES: Final = Path("etc/ssl/certs/ca-certificates.crt")
_AS_ON_THE_HOST: Final = ("etc/resolv.conf", str(_CERTIFICATES), "etc/pip.conf", "etc/xdg/pip")
"""How indexes are reached."""


class NoRootError(Exception):
    """A sentence for people."""


def say(text: str) -> None:
    sys.stderr.write(f"==> {text}\n")
    sys.stderr.flush()


def pristine(suite: str, *, place: Path, mirror: str | None, fresh: bool) -> Path:
    """The root below `place`, made if it is not there. Raises NoRootError."""
    root = place / suite
    if fresh or not root.exists():
        lines = [source(mirror, suite)] if mirror else _sources_of_this_host(suite)
        _install_tools()
        partial = place / f"{suite}.partial"
        _remove(partial)
        say(f"debootstrap {suite}")
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(_INCLUDED)}", suite, str(partial)]
        if namespaces.run([*command, lines[0].split(" ")[1]], directory=place) != 0:
            raise NoRootError(f"debootstrap failed; its log may be in {partial}/debootstrap/debootstrap.log")
        (partial / "etc/apt/sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
        _remove(root)
        partial.rename(root)
    return root


def _sources_of_this_host(suite: str) -> list[str]:
    codename = _codename()
    lines = sources(suite, targets=_output(INDEX_TARGETS), codename=codename) if codename else []
    if not lines:
        raise NoRootError("the apt sources of this host do not name Debian's archive; say where it is: --mirror URL")
    return lines


def _codename() -> str:
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    return ""


def _install_tools() -> None:
    tools = {"debootstrap": "debootstrap", "ip": "iproute2", "git": "git"}
    packages = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if packages:
        say(f"Installing {' '.join(packages)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def copied(pristine_root: Path, *, place: Path) -> Iterator[Path]:
    """A copy for one use; those that killed runs left are cleared away too."""
    for left in place.glob("run-*"):
        if not Path("/proc", left.name.removeprefix("run-")).exists():
            _remove(left)
    root = place / f"run-{os.getpid()}"
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", pristine_root, root], check=True)
        yield root
    finally:
        _remove(root)


def equip(root: Path, *, repository: Path) -> None:
    """What the copy has of this host: the way to the indexes, its name, and the committed HEAD as /vmpool.bundle."""
    for name in _AS_ON_THE_HOST:
        of_host, of_root = Path("/", name), root / name
        if of_host.is_dir():
            shutil.copytree(of_host, of_root)
        elif of_host.exists():
            of_root.parent.mkdir(parents=True, exist_ok=True)
            of_root.unlink(missing_ok=True)  # it may be a link
            shutil.copyfile(of_host, of_root)
    settings = [*apt_settings(_output(["apt-config", "dump"])), APT_HOOK]
    (root / "etc/apt/apt.conf.d/99test-debian").write_text("".join(f"{line}\n" for line in settings), "utf-8")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {os.uname().nodename}\n", encoding="utf-8")
    subprocess.run(["git", "-C", repository, "bundle", "create", "--quiet", root / "vmpool.bundle", "HEAD"], check=True)


def add_user(root: Path) -> None:
    """An ordinary one, with sudo, whose home nobody else may enter."""
    subprocess.run(["chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
    (root / "home" / USER).chmod(0o700)
    (root / "etc/sudoers.d" / USER).write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n", encoding="utf-8")


def _output(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _remove(tree: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", tree], check=True)
