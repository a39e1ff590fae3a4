"""What can go wrong for a client.

ClientError
|- ServiceUnavailableError   nobody serves the socket, or the connection broke
`- CallError                 the service said no, with a gRPC status
"""

from __future__ import annotations

from pathlib import Path


class ClientError(Exception):
    """Base of the SDK's errors."""


class ServiceUnavailableError(ClientError):
    """Nobody serves the socket, or the connection broke. `socket_path` is the one that was tried."""

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
