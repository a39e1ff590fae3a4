"""The directory of one VM: its sockets and its logs, for nobody but the service's user."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from vmm.errors import MissingFileError, SpecError
from vmm.regular import open_regular

MAX_SOCKET_PATH_BYTES = 107
"""Linux: `sun_path` has 108 bytes, of which the last is the terminating zero."""

TAIL_BYTES = 4096

QUEUE_PAUSE_S: Final = 0.02
"""Between attempts at a socket whose queue is full; the kernel does not tell when it has room."""


@attrs.frozen
class VmDirectory:
    """The paths of one VM. Making the record touches nothing."""

    root: Path

    @property
    def qmp_socket(self) -> Path:
        return self.root / "qmp.sock"

    @property
    def agent_socket(self) -> Path:
        return self.root / "agent.sock"

    @property
    def console_log(self) -> Path:
        """What the guest wrote to its serial console."""
        return self.root / "console.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU wrote to stdout and stderr."""
        return self.root / "qemu.log"

    @property
    def cgroups(self) -> Path:
        """The VM's cgroups and their limits; see `VmGroup.record`. Not there if it has none."""
        return self.root / "cgroups"

    def create(self) -> None:
        """Makes the directory, mode 0700, and its parent if only that is missing: somebody may have removed it.

        Raises SpecError if the path is in use or too long for sockets, MissingFileError if there is no place for it.
        """
        for path in (self.qmp_socket, self.agent_socket):
            if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                raise SpecError(
                    field="directory",
                    value=str(self.root),
                    reason=f"the Unix socket {path} would be over Linux's {MAX_SOCKET_PATH_BYTES} bytes; "
                    "choose a shorter directory",
                )
        try:
            if not self.root.parent.exists():
                self.root.parent.mkdir(mode=0o700)
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            raise SpecError(
                field="directory", value=str(self.root), reason="exists already; give each VM a directory of its own"
            ) from None
        except FileNotFoundError:
            raise MissingFileError(
                field="directory", path=self.root.parent.parent, remedy="create it, owned by the service's user"
            ) from None

    def remove(self) -> None:
        """Removes the directory and all that is in it. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)


@contextlib.contextmanager
def new_log(path: Path) -> Iterator[int]:
    """A new file, mode 0600, open for appending within the block. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
    """Connects to a socket of QEMU's; waits while its queue is full, of services that were killed. Raises OSError.

    Of a Unix socket whose queue is full the kernel says EAGAIN, which `trio.open_unix_socket` takes for success.
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


def read_tail(path: Path, *, limit: int = TAIL_BYTES) -> str:
    """The end of a log, at most `limit` bytes, as evidence; empty if there is no such file.

    Never raises OSError: it is read while something else fails or ends, and evidence must not get in the way of that.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - limit))
            return log.read(limit).decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
