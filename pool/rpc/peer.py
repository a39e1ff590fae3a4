"""The identity of a connection's peer."""

from __future__ import annotations

import contextvars
import errno
import socket
import struct
from typing import Final

from pool.ledger.records import Owner
from pool.settings.permissions import Caller

_UCRED: Final = struct.Struct("iII")

_GID: Final = struct.Struct("I")

_SO_PEERGROUPS: Final = 59
"""As in <asm-generic/socket.h>; Python does not name it."""

_GROUPS_BYTES: Final = 1024
"""The maximum of Python's `getsockopt`: 256 groups."""


current_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("vmpool_caller")
"""The caller of the current call."""


def current_owner() -> Owner:
    """The caller of the current call, as an owner of leases."""
    return Owner(uid=current_caller.get().uid)


def caller_of(connection: socket.socket) -> Caller:
    """The peer of a Unix socket's connection (SO_PEERCRED, SO_PEERGROUPS).

    The pid is left out: the process may be gone and its pid reused, so no decision may depend on it.
    """
    _pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(uid=uid, gid=gid, groups=_groups_of(connection))


def _groups_of(connection: socket.socket) -> frozenset[int]:
    """Empty for a caller in more groups than fit: such a caller is admitted by uid or primary group only."""
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return frozenset()
    return frozenset(gid for (gid,) in _GID.iter_unpack(groups))
