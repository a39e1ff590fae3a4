"""Where a service listens unless it is told otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LocalPath = str | os.PathLike[str]
"""A path on this host."""

SOCKET_NAME: Final = "vmpool.sock"

HOST_DIRECTORY: Final = Path("/run/vmpool")


def service_socket(
    *, environment: Mapping[str, str] = os.environ, uid: int | None = None, host_directory: Path = HOST_DIRECTORY
) -> Path:
    """`VMPOOL_SOCKET`; else the socket in `$XDG_RUNTIME_DIR/vmpool`, if there is one; else that in /run/vmpool.

    Root uses /run/vmpool unless VMPOOL_SOCKET is set: a root shell may inherit another session's XDG_RUNTIME_DIR.
    """
    named = environment.get("VMPOOL_SOCKET")
    if named:
        return Path(named)
    ours = host_directory / SOCKET_NAME
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and (os.geteuid() if uid is None else uid) != 0:
        theirs = Path(runtime) / "vmpool" / SOCKET_NAME
        if theirs.exists() or not ours.exists():
            return theirs
    return ours
