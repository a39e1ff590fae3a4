"""Who is at the other end of a connection, and whether they may be there."""

from __future__ import annotations

import contextvars
import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
from grpclib.const import Status
from grpclib.events import RecvRequest
from grpclib.exceptions import GRPCError
from grpclib.protocol import Peer

_UCRED: Final = struct.Struct("iII")

_GID: Final = struct.Struct("I")

_SO_PEERGROUPS: Final = 59
"""As in <asm-generic/socket.h>; Python does not name it."""

_GROUPS_BYTES: Final = 1024
"""What `getsockopt` takes at most: 256 groups."""


@attrs.frozen(kw_only=True)
class Caller:
    """As the kernel noted it when the client connected."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary ones."""


current_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("vmpool_caller")
"""The caller of the call whose handler runs."""


def caller_of(peer: Peer) -> Caller:
    """The peer of a Unix socket connection (SO_PEERCRED, SO_PEERGROUPS).

    The pid is left out: the process may be gone, and its number another's, so nothing may be decided by it.
    """
    connection = peer._transport.get_extra_info("socket")  # noqa: SLF001 - Peer.addr() is empty for Unix sockets
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


def default_uids() -> frozenset[int]:
    """Root, and the user the service runs as."""
    return frozenset({0, os.geteuid()})


def admit(
    allowed_uids: frozenset[int], allowed_gids: frozenset[int] = frozenset()
) -> Callable[[RecvRequest], Coroutine[Any, Any, None]]:
    """A listener for RecvRequest that lets in whom its uid or one of its groups allows, and notes the caller."""

    async def listener(event: RecvRequest) -> None:
        caller = caller_of(event.peer)
        if caller.uid not in allowed_uids and allowed_gids.isdisjoint({caller.gid} | caller.groups):
            raise GRPCError(
                Status.PERMISSION_DENIED,
                f"uid {caller.uid} may not use this service; ask its administrator to allow it in [access]",
            )
        current_caller.set(caller)

    return listener
