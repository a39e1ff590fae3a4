"""Who is at the other end of a connection."""

from __future__ import annotations

import contextvars
import errno
import socket
import struct
from typing import Final

from pool.settings.permissions import Caller

_UCRED: Final = struct.Struct("iII")

_GID: Final = struct.Struct("I")

_SO_PEERGROUPS: Final = 59
"""As in <asm-generic/socket.h>; Python does not name it."""

_GROUPS_BYTES: Final = 1024
"""What `getsockopt` takes at most: 256 groups."""


current_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("vmpool_caller")
"""The caller of the call whose handler runs."""


def caller_of(connection: socket.socket) -> Caller:
    """The peer of a Unix socket's connection (SO_PEERCRED, SO_PEERGROUPS).

    The pid is left out: the process may be gone, and its number another's, so nothing may be decided by it.
    """
    _pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(uid=uid, gid=gid, groups=_groups_of(connection))


def _groups_of(connection: socket.socket) -> frozenset[int]:
    """None for a caller in more groups than we can be told of: it is admitted by its uid or primary group, or not."""
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return frozenset()
    return frozenset(gid for (gid,) in _GID.iter_unpack(groups))
