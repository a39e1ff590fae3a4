"""Unix sockets with a path: listening, and connecting to one that may be busy."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

import trio

MAX_SOCKET_PATH_BYTES: Final = 107
"""Linux: `sun_path` has 108 bytes, of which the last is the terminating zero."""

QUEUE_PAUSE_S: Final = 0.02
"""Between attempts at a socket whose queue is full; the kernel does not report when the queue has space."""


def listen(path: Path) -> socket.socket:
    """A listening Unix socket, mode 0600 from its first moment. The caller closes it; the file stays."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before bind: the file takes its mode from the socket, less the umask
        listener.bind(os.fspath(path))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


async def connect(path: Path) -> trio.SocketStream:
    """Connects to a socket of QEMU's; waits while its queue is full of connections of killed services. Raises OSError.

    For a full queue the kernel returns EAGAIN, which `trio.open_unix_socket` takes for success.
    """
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        while True:
            try:
                sock.connect(os.fspath(path))
            except BlockingIOError:
                await trio.sleep(QUEUE_PAUSE_S)
            else:
                break
        await trio.lowlevel.checkpoint()
        undo.pop_all()
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
