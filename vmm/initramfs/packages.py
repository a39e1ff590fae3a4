"""The Debian packages that a guest is made of.

Package names contain versions, so they are found through the dependencies of unversioned packages:
`linux-image-cloud-amd64`, `python3-minimal`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from vmm.initramfs import debian
from vmm.initramfs.errors import ImageError
from vmm.words.machines import AgentKind

CLOUD_KERNEL: Final = "linux-image-cloud-amd64"
"""Depends on the latest kernel for virtual machines."""

_PYTHON = re.compile(r"(lib)?python3\.\d+-(minimal|stdlib)")

_LIBRARY = re.compile("lib.*|zlib1g")

_LIBRARY_LEFT_OUT = re.compile("lib(crypt|db|ncurses|nsl|readline|sqlite|ssl|tinfo|tirpc|uuid)[0-9w].*")
"""Dependencies of Python that are too large for their use here. Extension modules that need them are left out."""


async def packages_of(agent: AgentKind) -> tuple[str, list[debian.Package]]:
    """The kernel's release, and all packages in the versions that apt has now. Raises ImageError."""
    release, names = await kernel_packages(CLOUD_KERNEL)
    names |= await (_qga() if agent is AgentKind.QGA else _python())
    return release, await debian.candidates(sorted({*names, "busybox-static"}))


async def kernel_packages(latest: str) -> tuple[str, set[str]]:
    """The release that `latest` depends on, and the names of its packages: one until Debian 13, then several.

    Raises ImageError.
    """
    depends = await debian.depends(latest)
    image = next((name for name in depends if re.match(r"linux-image-\d", name)), None)
    if image is None:
        raise _no_package(f"{latest} depends on no versioned package")
    release = image.removeprefix("linux-image-")
    return release, await _with_dependencies([image], lambda name: name.endswith(f"-{release}"))


async def _python() -> set[str]:
    first = await debian.depends("python3-minimal", "libpython3-stdlib")
    parts = await _with_dependencies(filter(_PYTHON.fullmatch, first), lambda name: bool(_PYTHON.fullmatch(name)))
    if not any(name.startswith("python") for name in parts):
        raise _no_package("python3-minimal depends on no versioned package")
    libraries = {name for name in await debian.depends(*sorted(parts)) if _LIBRARY.fullmatch(name)}
    return parts | {name for name in libraries if not _LIBRARY_LEFT_OUT.fullmatch(name)}


async def _qga() -> set[str]:
    return await _with_dependencies(["qemu-guest-agent", "perl-base"], lambda name: bool(_LIBRARY.fullmatch(name)))


async def _with_dependencies(names: Iterable[str], wanted: Callable[[str], bool]) -> set[str]:
    """The names, with their wanted dependencies, recursively."""
    found = set(names)
    new = found
    while new:
        new = {name for name in await debian.depends(*sorted(new)) if wanted(name)} - found
        found |= new
    return found


def _no_package(reason: str) -> ImageError:
    return ImageError(
        stage="resolve", reason=reason, remedy="run `apt-get update` with Debian's main archive in the apt sources"
    )
