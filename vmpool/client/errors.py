"""Errors of the SDK.

ClientError
|- ServiceUnavailableError   no service listens on the socket, or the connection broke
`- CallError                 the call ended with an error status of gRPC
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class ClientError(Exception):
    """Base of the SDK's errors. They can be pickled: a worker process may hand one to its parent."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[ClientError], args: tuple[Any, ...]) -> ClientError:
    """An exception's own way calls its class with the message, and these want keywords."""
    return kind.__new__(kind, *args)


class ServiceUnavailableError(ClientError):
    """No service listens on `socket_path`, or the connection to it broke."""

    def __init__(self, *, socket_path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{socket_path}: {reason}; {remedy}")
        self.socket_path = socket_path
        self.reason = reason
        self.remedy = remedy


class CallError(ClientError):
    """The service, or the client's own deadline, ended a call. `status` is the gRPC status by name ("NOT_FOUND")."""

    def __init__(self, *, status: str, message: str) -> None:
        super().__init__(message or f"the call ended with {status}")
        self.status = status
        self.message = message
