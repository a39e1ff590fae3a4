"""Errors of the SDK.

ClientError
|- ServiceUnavailableError      no service listens on the socket, or the connection broke
|- CallError                    the call ended with an error status of gRPC
|  |- CallTimeoutError          DEADLINE_EXCEEDED; also a TimeoutError
|  `- GuestError                the guest's kernel refused; `errno` says why. Also an OSError, and as that one of:
|     GuestFileNotFoundError, GuestFileExistsError, GuestIsADirectoryError, GuestNotADirectoryError,
|     GuestPermissionError, GuestProcessNotFoundError, GuestConnectionRefusedError
|- CommandError                 a command that was to succeed did not (`run(..., check=True)`)
|- OutputTooLargeError          a command wrote more than `max_output`
`- UnsafeTreeError              a tree from a guest has a member that would leave its directory
"""

from __future__ import annotations

import errno as numbers
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vmpool.client.records import CompletedCommand


class ClientError(Exception):
    """Base of the SDK's errors. They can be pickled: a worker process may hand one to its parent."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[ClientError], args: tuple[Any, ...]) -> ClientError:
    """An exception's own way calls its class with the message, and these want keywords."""
    error = kind.__new__(kind, *args)
    error.args = args  # OSError takes them in its __init__ only
    return error


class ServiceUnavailableError(ClientError):
    """No service listens on `socket_path`, or the connection to it broke."""

    def __init__(self, *, socket_path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{socket_path}: {reason}; {remedy}")
        self.socket_path = socket_path
        self.reason = reason
        self.remedy = remedy


class CallError(ClientError):
    """The service, or the client's own deadline, ended a call. `status` is the gRPC status by name ("NOT_FOUND")."""

    reason: str = ""
    """In one word, if the service says so: an errno's name in a GuestError ("ENOENT"), else why it refused
    ("LEASE_ENDED", "UNSUPPORTED")."""

    def __init__(self, *, status: str, message: str) -> None:
        super().__init__(message or f"the call ended with {status}")
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would look for an errno


def service_fault(what: str) -> CallError:
    """A reply of the service lacks what each must have; `what` says it: "sent no lease in its reply"."""
    return CallError(status="INTERNAL", message=f"the service {what}; see its log")


class CallTimeoutError(CallError, TimeoutError):
    """A call was not answered within its time (DEADLINE_EXCEEDED)."""


class GuestError(CallError, OSError):
    """The guest's kernel refused an operation: `errno`, `strerror` and, if there is one, `filename` as Python has them.

    `reason` is the errno's name.
    """

    def __init__(self, *, status: str, message: str, reason: str, filename: str | None = None) -> None:
        super().__init__(status=status, message=message)
        self.reason = reason
        self.errno = getattr(numbers, reason, None)
        self.strerror = message
        self.filename = filename

    def __reduce__(self) -> tuple[Any, ...]:
        kernels = {"errno": self.errno, "strerror": self.strerror, "filename": self.filename}
        return _revive, (type(self), self.args), {**self.__dict__, **kernels}


class GuestFileNotFoundError(GuestError, FileNotFoundError):
    """ENOENT."""


class GuestFileExistsError(GuestError, FileExistsError):
    """EEXIST, and ENOTEMPTY, for which Python has no class."""


class GuestIsADirectoryError(GuestError, IsADirectoryError):
    """EISDIR."""


class GuestNotADirectoryError(GuestError, NotADirectoryError):
    """ENOTDIR."""


class GuestPermissionError(GuestError, PermissionError):
    """EACCES, EPERM, EROFS."""


class GuestProcessNotFoundError(GuestError, ProcessLookupError):
    """ESRCH."""


class GuestConnectionRefusedError(GuestError, ConnectionRefusedError):
    """ECONNREFUSED: nobody listens there."""


class GuestTimeoutError(GuestError, TimeoutError):
    """ETIMEDOUT."""


_GUEST_ERRORS: Final[Mapping[str, type[GuestError]]] = {
    "ENOENT": GuestFileNotFoundError,
    "EEXIST": GuestFileExistsError,
    "ENOTEMPTY": GuestFileExistsError,
    "EISDIR": GuestIsADirectoryError,
    "ENOTDIR": GuestNotADirectoryError,
    "EACCES": GuestPermissionError,
    "EPERM": GuestPermissionError,
    "EROFS": GuestPermissionError,
    "ESRCH": GuestProcessNotFoundError,
    "ECONNREFUSED": GuestConnectionRefusedError,
    "ETIMEDOUT": GuestTimeoutError,
}


def call_error(
    *, status: str, message: str, reason: str = "", domain: str = "", metadata: Mapping[str, str] | None = None
) -> CallError:
    """The most specific error for a status and what its ErrorInfo says."""
    if domain == "guest" and isinstance(getattr(numbers, reason, None), int):
        kind = _GUEST_ERRORS.get(reason, GuestError)
        return kind(status=status, message=message, reason=reason, filename=(metadata or {}).get("path"))
    error = (CallTimeoutError if status == "DEADLINE_EXCEEDED" else CallError)(status=status, message=message)
    if reason:
        error.reason = reason
    return error


class CommandError(ClientError):
    """A command that was to succeed did not: it ended with another status than 0, by a signal, or ran out of time."""

    def __init__(self, *, command: str, completed: CompletedCommand[Any]) -> None:
        super().__init__(f"{command}: {completed.exit.describe()}{_last_words(completed.stderr)}")
        self.command = command
        self.completed = completed
        """What it wrote, and how it ended."""


class OutputTooLargeError(ClientError):
    """A command wrote more than `limit` bytes to stdout and stderr together, and was killed for it."""

    def __init__(self, *, limit: int, stdout: bytes, stderr: bytes) -> None:
        super().__init__(f"the command wrote more than max_output, {limit} bytes; raise it, or write to a file")
        self.limit = limit
        self.stdout = stdout
        """What came before that."""
        self.stderr = stderr


class UnsafeTreeError(ClientError):
    """A tree from a guest has a member that would not stay in the directory it is extracted to."""

    def __init__(self, *, member: str, reason: str) -> None:
        super().__init__(f"{member!r:.200} {reason}; nothing outside the target was touched")
        self.member = member
        self.reason = reason


def _last_words(stderr: str | bytes) -> str:
    """The last line of stderr, cut; a guest wrote it."""
    text = stderr if isinstance(stderr, str) else stderr.decode(errors="replace")
    lines = text.strip().splitlines()
    return f": {lines[-1][:200]!r}" if lines else ""
