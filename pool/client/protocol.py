"""grpclib's connection, made to keep an answer that is all there when the connection ends.

A server may answer and hang up in one go. grpclib then ends the call with an error although every byte of the answer
has come; what the answer gave would be lost to both sides.
"""

from __future__ import annotations

import asyncio

from grpclib.protocol import EventsProcessor, H2Protocol


class LastingProcessor(EventsProcessor):
    """Spares calls that are complete when the connection closes."""

    def close(self, reason: str = "Connection closed") -> None:
        complete = {number: stream for number, stream in self.streams.items() if stream.trailers is not None}
        for number, stream in complete.items():
            del self.streams[number]
            stream.buffer._ack_callback = lambda _size: None  # noqa: SLF001 - nobody is there to be told
        super().close(reason)
        self.streams.update(complete)  # each call takes itself out of it


class LastingProtocol(H2Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.processor = LastingProcessor(self.handler, self.connection)
