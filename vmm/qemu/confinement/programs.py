"""What of the host's file system a QEMU needs: its program, its libraries and firmware, a few devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vmm.qemu.accelerator import KVM_DEVICE
from vmm.qemu.jailer.protocol import Files
from vmm.spec import Accelerator

SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/etc/ld.so.preload")
"""Nothing in there is a secret. Debian's QEMU has its firmware and its modules in /usr."""

STORES: Final = (Path("/nix/store"), Path("/gnu/store"))
"""Where each package is a directory of its own, and a program's libraries are all over them."""

DEVICES: Final = ("/dev/null", "/dev/urandom")

_PATH_VARIABLES: Final = ("LD_LIBRARY_PATH", "QEMU_MODULE_DIR")


def files_for(program: Path, *, accelerator: Accelerator, environment: Mapping[str, str]) -> Files:
    """For that QEMU, with that environment."""
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
    """Where a QEMU that is not the distribution's has its firmware and libraries: beside it, or beside its bin/.

    Not where that would show what is somebody's: a directory right below the root, or a home.
    """
    for store in STORES:
        if program.is_relative_to(store):
            return [store]
    beside = [program.parent]
    if program.parent.name in ("bin", "libexec"):
        beside.append(program.parent.parent)
    return [program, *(directory for directory in beside if not _is_large(directory))]


def _is_large(directory: Path) -> bool:
    parts = directory.parts
    return len(parts) <= 2 or (parts[:2] == ("/", "home") and len(parts) == 3) or directory == Path.home()
