"""Streams to and from a guest. Back-pressured both ways; memory is bounded by the room that they are opened with."""

from __future__ import annotations

from typing import Protocol, TypeVar

Record_co = TypeVar("Record_co", covariant=True)


class ByteSource(Protocol):
    """Bytes from the guest. Its owner must `aclose` it."""

    async def receive(self) -> bytes:
        """The next piece, at most 64 KiB; empty at the end. Raises AgentError."""

    async def aclose(self) -> None:
        """Ends it in the guest too. Idempotent, never raises AgentError; under cancellation the end is still sent."""


class ByteStream(ByteSource, Protocol):
    """Bytes both ways."""

    async def send(self, data: bytes) -> None:
        """Waits while the guest does not read. Raises AgentError; when cancelled, a part may have been sent."""

    async def send_eof(self) -> None:
        """Ends this direction; the other one goes on. Idempotent. Raises AgentError."""


class RecordSource(Protocol[Record_co]):
    """Records from the guest, each checked. Its owner must `aclose` it."""

    async def receive(self) -> tuple[Record_co, ...]:
        """The next ones, as many as are there; none at the end. Raises AgentError."""

    async def aclose(self) -> None:
        """As `ByteSource.aclose`."""
