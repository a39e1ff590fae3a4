"""A root directory that contains only what a program needs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from vmm.qemu.jailer import kernel
from vmm.qemu.jailer.protocol import Files

_STAGE = "/sys"
"""The new root is assembled here. Every host has this directory, and nothing in it is needed."""

_SYSTEM = ("/bin", "/sbin")
"""On most hosts these link into /usr. They are recreated as links, as are other links on the way to a shown path."""

_BIND = kernel.MS_BIND | kernel.MS_REC
_QUIET = kernel.MS_NOSUID | kernel.MS_NODEV


def enter(files: Files) -> None:
    """Changes to the new root, in a mount namespace of our own, so the host is not affected. Raises OSError."""
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", _STAGE, "tmpfs", _QUIET | kernel.MS_NOEXEC, "mode=755,size=1m")
    umask = os.umask(0o022)  # these directories may be passed through by another user than the one that creates them
    named = (*_SYSTEM, *files["programs"], *files["devices"])
    places = {path: os.path.realpath(path) for path in named if os.path.exists(path)}
    shown = _outermost([place for path, place in places.items() if path not in _SYSTEM])
    for path in shown:
        _show(path)
    linked = [path for path, place in places.items() if path != place]
    for link, end in {link for path in linked for link in _links_on_the_way(path)}:
        if not any(link.startswith(f"{directory}/") for directory in shown):
            os.makedirs(os.path.dirname(_STAGE + link), exist_ok=True)
            os.symlink(end, _STAGE + link)
    _show_processes()
    os.umask(umask)
    kernel.make_read_only(_STAGE)
    kernel.move_root(_STAGE)


def _outermost(paths: list[str]) -> list[str]:
    """Drops paths that are below another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not (kept and path.startswith(kept[-1] + "/")):
            kept.append(path)
    return kept


def _links_on_the_way(path: str) -> Iterator[tuple[str, str]]:
    """Yields each symbolic link on the way: its path, free of links itself, and its target."""
    place = "/"
    for part in path.split("/"):
        step = os.path.join(place, part)
        if os.path.islink(step):
            yield from _links_on_the_way(os.path.normpath(os.path.join(place, os.readlink(step))))
            step, link = os.path.realpath(step), step
            yield link, step
        place = step


def _show(path: str) -> None:
    """Makes a path visible in the new root, at its own place."""
    target = _STAGE + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISDIR(os.stat(path).st_mode):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    kernel.mount(path, target, "", _BIND)


def _show_processes() -> None:
    """Shows the processes of our namespace, and nothing else of /proc.

    If the kernel hides parts of /proc from us it refuses a new one; then the old one is shown.
    """
    target = f"{_STAGE}/proc"
    os.mkdir(target)
    try:
        kernel.mount("proc", target, "proc", _QUIET | kernel.MS_NOEXEC, "subset=pid")
    except OSError:
        kernel.mount("/proc", target, "", _BIND)
