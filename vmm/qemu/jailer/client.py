"""The service's side of its jailer."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from vmm.errors import JailError
from vmm.qemu.jailer import children, protocol
from vmm.qemu.jailer.protocol import Request

ANSWER_LIMIT_S: Final = 10
"""From a request to the program's execution, which takes milliseconds; the event loop is blocked meanwhile."""

_PROGRAM: Final = Path(__file__).with_name("__main__.py")

_ENVIRONMENT: Final = ("LD_LIBRARY_PATH",)
"""Variables that an interpreter may need to find its own library."""

_TIMEVAL: Final = struct.Struct("@ll")


@attrs.frozen(kw_only=True)
class Started:
    """A child of ours; the receiver closes the pidfd."""

    pid: int
    pidfd: int

    def wait(self) -> None:
        """Blocks until it ends, reaps it and closes the pidfd."""
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)


@attrs.define(eq=False)
class Jailer:
    """A process of ours that starts others. It is started when first needed, and again if it was killed.

    For one thread. The owner closes it.
    """

    _filter: bytes = b""
    """The seccomp program for requests that want one."""
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)
    _socket: socket.socket | None = attrs.field(default=None, init=False)

    def start(self, request: Request, descriptors: Sequence[int]) -> Started:
        """Starts a program, and returns when it is executed, or set up if the request names no program.

        Not a checkpoint. The descriptors stay the caller's. Raises JailError, and then no process is left.
        """
        message = json.dumps(request).encode()
        if len(message) > protocol.MAX_MESSAGE:
            reason = f"{len(message)} bytes exceed the maximum of {protocol.MAX_MESSAGE}; shorten the program's options"
            raise JailError(stage="request", errno=errno.E2BIG, reason=reason)
        try:
            try:
                answer, pidfd = self._ask(message, descriptors)
            except (ConnectionError, EOFError):
                self._bury(request)  # it was killed, perhaps in the middle of a request
                answer, pidfd = self._ask(message, descriptors)
        except (OSError, EOFError) as error:
            self._bury(request)
            what = "the jailer exited at once" if isinstance(error, (EOFError, ConnectionError)) else str(error)
            reason = f"{what}; check that {sys.executable} can be executed"
            raise JailError(stage="jailer", errno=getattr(error, "errno", 0) or 0, reason=reason) from error
        except BaseException:  # interrupted: the answer would be read as the next request's
            self._bury(request)
            raise
        if "stage" not in answer:
            assert pidfd is not None, "a started process has one"
            return Started(pid=answer["pid"], pidfd=pidfd)
        if pidfd is not None:
            Started(pid=answer["pid"], pidfd=pidfd).wait()
        raise JailError(stage=answer["stage"], errno=answer["errno"], reason=answer["text"])

    def close(self) -> None:
        """Ends the jailer; the processes that it started go on. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _ask(self, message: bytes, descriptors: Sequence[int]) -> tuple[protocol.Answer, int | None]:
        sock = self._connected()
        socket.send_fds(sock, [message], list(descriptors))
        answer, pidfds = protocol.receive(sock)
        if not answer:
            raise EOFError
        return json.loads(answer), pidfds[0] if pidfds else None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                # Not settimeout(): the socket stays blocking, and the kernel enforces the limit.
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(ANSWER_LIMIT_S, 0))
                try:
                    self._process = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                        cwd="/",
                        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                        start_new_session=True,
                    )
                    ours.send(self._filter or b"\0")
                except BaseException:
                    ours.close()
                    raise
            self._socket = ours
        return self._socket

    def _bury(self, request: Request) -> None:
        """Ends the jailer, and any process that it started for this request without reporting it."""
        if self._process is None:
            return
        name, argv = children.name_of(self._process.pid), self._process.args
        self.close()
        assert isinstance(argv, list)
        children.end_all(name=name, argvs=(argv, request["argv"]))


@contextmanager
def open_jailer(program: bytes) -> Iterator[Jailer]:
    """A jailer that is closed at the end of the block."""
    jailer = Jailer(program)
    try:
        yield jailer
    finally:
        jailer.close()
