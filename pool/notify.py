"""Tells whoever started the service how it is doing, by systemd's notification protocol (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(state: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends `state` ("READY=1", "STOPPING=1") to `$NOTIFY_SOCKET`; returns False where there is none.

    A name that starts with @ is in the abstract namespace. Raises OSError if the socket is there but does not take it.
    """
    name = environment.get("NOTIFY_SOCKET")
    if not name:
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)
    return True
