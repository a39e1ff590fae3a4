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
    own = [str(path) for path in (program, program.resolve().parent, _home_of(program.resolve())) if path is not None]
    named = [
        path
        for variable in _PATH_VARIABLES
        for path in environment.get(variable, "").split(os.pathsep)
        if path.startswith("/") and path.strip("/")
    ]
    kvm = [str(KVM_DEVICE)] if accelerator is Accelerator.KVM else []
    return Files(programs=[*SYSTEM, *own, *named], devices=[*DEVICES, *kvm])


def _home_of(program: Path) -> Path | None:
    """The directory of a QEMU that is not the distribution's: firmware and libraries are beside its bin/.

    One in a bin/ right below the root directory, or below a home, would show all of that.
    """
    for store in STORES:
        if program.is_relative_to(store):
            return store
    prefix = program.parent.parent
    is_own = program.parent.name in ("bin", "libexec") and len(prefix.parts) > 2 and prefix != Path.home()
    return prefix if is_own else None
