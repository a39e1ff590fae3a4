"""Default paths: the service's socket, the caches, the guest image, the templates."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "vmpool.sock"

_CODE: Final = Path(__file__).parents[2]
"""The directory of the packages: a checkout, or where the wheel is installed."""


def default_socket(*, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """`VMPOOL_SOCKET`, else in `$XDG_RUNTIME_DIR/vmpool/`, else in `/run/vmpool/`.

    Root uses /run/vmpool unless VMPOOL_SOCKET is set: a root shell may inherit another session's XDG_RUNTIME_DIR.
    """
    named = environment.get("VMPOOL_SOCKET")
    if named:
        return Path(named)
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and (os.geteuid() if uid is None else uid) != 0:
        return Path(runtime) / "vmpool" / SOCKET_NAME
    return Path("/run/vmpool") / SOCKET_NAME


def cache_directory(*, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """For files that can be made again: the built guest image, the accelerator's verdict."""
    if (os.geteuid() if uid is None else uid) == 0:
        return Path("/var/cache/vmpool")
    cache = environment.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vmpool"


def default_image_directory(
    *, environment: Mapping[str, str] = os.environ, uid: int | None = None, code: Path = _CODE
) -> Path:
    """`VMPOOL_IMAGE_DIR`, else `build/image` of the checkout that this code is in, else in the cache directory.

    So `scripts/demo`, the service and all users of one checkout, root with sudo included, share one image.
    """
    named = environment.get("VMPOOL_IMAGE_DIR")
    if named:
        return Path(named)
    if (code / "scripts" / "demo").is_file():
        return code / "build" / "image"
    return cache_directory(environment=environment, uid=uid) / "image"


def template_directory(profile: str, *, runtime: Path, mountinfo: str | None = None) -> Path:
    """A profile's template directory: below the runtime directory if that is on tmpfs, else in /dev/shm.

    Templates are kept in memory: on a disk, each page that the template VM touches would be written back. The path is
    the same after a restart, so that the template is found again.
    """
    if file_system_of(runtime, mountinfo=mountinfo) == "tmpfs":
        return runtime / "templates" / profile
    place = hashlib.sha256(os.fsencode(runtime.absolute())).hexdigest()[:12]
    # The name can be guessed; the template store refuses a directory that other users can write to.
    return Path("/dev/shm") / f"vmpool-{os.geteuid()}-{place}" / profile  # noqa: S108 - see above


def file_system_of(path: Path, *, mountinfo: str | None = None) -> str:
    """The type of the file system that contains, or would contain, `path` (proc_pid_mountinfo(5))."""
    text = (
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        if mountinfo is None
        else mountinfo
    )
    wanted = path.absolute()
    best, found = -1, ""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount_point = Path(left.split(" ")[4].replace("\\040", " "))
        # Later lines shadow earlier ones of the same mount point.
        if wanted.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, found = len(mount_point.parts), right.split(" ")[0]
    return found
