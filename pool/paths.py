"""Where things are: the service's socket, its runtime directory, the guest image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "vmpool.sock"


def default_socket(*, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """`VMPOOL_SOCKET`, else in `$XDG_RUNTIME_DIR/vmpool/`, else in `/run/vmpool/`.

    Root uses /run/vmpool unless told otherwise: a root shell inherits XDG_RUNTIME_DIR from sessions it is not part of.
    """
    named = environment.get("VMPOOL_SOCKET")
    if named:
        return Path(named)
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and (os.geteuid() if uid is None else uid) != 0:
        return Path(runtime) / "vmpool" / SOCKET_NAME
    return Path("/run/vmpool") / SOCKET_NAME


def cache_directory(*, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """What can be made again: the built guest image, the accelerator's verdict."""
    if (os.geteuid() if uid is None else uid) == 0:
        return Path("/var/cache/vmpool")
    cache = environment.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vmpool"


def default_image_directory(*, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """`VMPOOL_IMAGE_DIR`, else in the cache directory."""
    named = environment.get("VMPOOL_IMAGE_DIR")
    return Path(named) if named else cache_directory(environment=environment, uid=uid) / "image"
