"""Which Debian packages a guest is made of."""

from __future__ import annotations

import re

from vmm.guest import debian
from vmm.guest.image_errors import ImageError
from vmm.spec import AgentKind

_LIBRARY_PREFIXES = ("libc6", "zlib1g", "libexpat", "libffi", "libbz2", "liblzma")
"""Of the packages that Python depends on, those that the modules in the image need."""


async def packages_of(agent: AgentKind) -> tuple[str, list[debian.Package]]:
    """The name of the kernel's package, and all packages in the versions that apt has now. Raises ImageError."""
    return await (_with_qga() if agent is AgentKind.QGA else _with_builtin_agent())


async def _with_qga() -> tuple[str, list[debian.Package]]:
    latest = await debian.depends("linux-image-cloud-amd64")
    kernel = next((name for name in latest if name.startswith("linux-image-")), None)
    if kernel is None:
        raise _no_package("linux-image-cloud-amd64 depends on no versioned package")
    # Libraries of libraries too; what is asked for twice is what ends the search.
    libraries: set[str] = set()
    new = {"qemu-guest-agent", "perl-base"}
    while new:
        found = {name for name in await debian.depends(*sorted(new)) if name.startswith("lib")}
        new = found - libraries
        libraries |= found
    names = {kernel, "busybox-static", "qemu-guest-agent", "perl-base", *libraries}
    return kernel, await debian.candidates(sorted(names))


async def _with_builtin_agent() -> tuple[str, list[debian.Package]]:
    latest = await debian.depends("linux-image-cloud-amd64", "python3-minimal")
    kernel = next((name for name in latest if name.startswith("linux-image-")), None)
    python = next((name for name in latest if re.fullmatch(r"python3\.\d+-minimal", name)), None)
    if kernel is None or python is None:
        raise _no_package("linux-image-cloud-amd64 or python3-minimal depends on no versioned package")
    parts = [python, f"lib{python}", f"lib{python.removesuffix('-minimal')}-stdlib"]
    libraries = {name for name in await debian.depends(*parts) if name.startswith(_LIBRARY_PREFIXES)}
    return kernel, await debian.candidates(sorted({kernel, "busybox-static", *parts, *libraries}))


def _no_package(reason: str) -> ImageError:
    return ImageError(
        stage="resolve", reason=reason, remedy="run `apt-get update` with Debian's main archive in the apt sources"
    )
