"""The files of the host that QEMU needs: its program, its libraries and firmware, a few devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vmm.qemu.accelerator import KVM_DEVICE
from vmm.qemu.jailer.protocol import Files
from vmm.words.machines import Accelerator

SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/etc/ld.so.preload")
"""These hold no secrets. Debian's QEMU has its firmware and its modules in /usr."""

STORES: Final = (Path("/nix/store"), Path("/gnu/store"))
"""Stores in which each package has a directory of its own, and a program's libraries are in many of them."""

DEVICES: Final = ("/dev/null", "/dev/urandom")

_PARTS: Final = ("lib", "lib64", "libexec", "share/qemu", "share/seabios")
"""QEMU's directories in a prefix that it shares with other programs."""

_PATH_VARIABLES: Final = ("LD_LIBRARY_PATH", "QEMU_MODULE_DIR")


def files_for(program: Path, *, accelerator: Accelerator, environment: Mapping[str, str]) -> Files:
    """The files for that QEMU, with that environment."""
    named = [
        path
        for variable in _PATH_VARIABLES
        for path in environment.get(variable, "").split(os.pathsep)
        if path.startswith("/") and path.strip("/")
    ]
    kvm = [str(KVM_DEVICE)] if accelerator is Accelerator.KVM else []
    own = [program, *_surroundings(program.resolve())]
    return Files(programs=[*SYSTEM, *map(str, own), *named], devices=[*DEVICES, *kvm])


def _surroundings(program: Path) -> list[Path]:
    """The places of firmware and libraries of a QEMU that is not the distribution's: beside it, or beside its bin/.

    Of a directory that may hold a person's files, only QEMU's own directories are shown.
    """
    if program.is_relative_to(SYSTEM[0]):
        return [program]
    for store in STORES:
        if program.is_relative_to(store):
            return [store]
    shown = [] if _is_personal(program.parent) else [program.parent]
    if program.parent.name in ("bin", "libexec"):
        prefix = program.parent.parent
        shown += [prefix / part for part in _PARTS] if _is_personal(prefix) else [prefix]
    return [program, *shown]


def _is_personal(directory: Path) -> bool:
    """Whether it may hold a person's files: right below the root, a home directory, or ~/.local."""
    return (
        len(directory.parts) <= 2
        or directory.parent.name == "home"
        or directory.name == ".local"
        or directory == Path.home()
    )
