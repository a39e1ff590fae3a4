"""What a status says beyond its code and message: google.rpc.ErrorInfo in `grpc-status-details-bin`.

Read by hand, since the two messages are small and their generated classes would cost the import of protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError

from vmpool.client.errors import CallError, call_error

ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"

_STATUS_DETAILS: Final = 3
_ANY_TYPE, _ANY_VALUE = 1, 2
_REASON, _DOMAIN, _METADATA = 1, 2, 3
_KEY, _VALUE = 1, 2


@attrs.frozen(kw_only=True)
class ErrorInfo:
    reason: str
    domain: str
    """ "guest": the reason is an errno's name; "vmpool": why the service refused."""
    metadata: Mapping[str, str] = attrs.field(factory=dict, hash=False)


class DetailsCodec(StatusDetailsCodecBase):
    """Finds the first ErrorInfo; details that are not well-formed count as none, since the status says enough."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        raise NotImplementedError("a client sends no status")

    def decode(
        self,
        status: Status,  # noqa: ARG002 - grpclib's signature
        message: str | None,  # noqa: ARG002 - idem
        data: bytes,
    ) -> ErrorInfo | None:
        try:
            for number, detail in _fields(data):
                if number == _STATUS_DETAILS:
                    parts = dict(_fields(detail))
                    if parts.get(_ANY_TYPE) == ERROR_INFO.encode():
                        return _error_info(parts.get(_ANY_VALUE, b""))
        except (IndexError, ValueError):  # UnicodeDecodeError is one
            return None
        return None


def error_of(error: GRPCError) -> CallError:
    """The SDK's error for a status."""
    info = error.details if isinstance(error.details, ErrorInfo) else None
    return call_error(
        status=error.status.name,
        message=error.message or "",
        reason=info.reason if info else "",
        domain=info.domain if info else "",
        metadata=info.metadata if info else {},
    )


def _error_info(data: bytes) -> ErrorInfo:
    reason = domain = ""
    metadata = {}
    for number, value in _fields(data):
        if number == _REASON:
            reason = value.decode()
        elif number == _DOMAIN:
            domain = value.decode()
        elif number == _METADATA:
            entry = dict(_fields(value))
            metadata[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
    return ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that have a length; numbers are skipped. Raises IndexError or ValueError."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, data[at : at + length]
                at += length
            case 5:
                at += 4
            case kind:
                raise ValueError(f"unknown kind of field: {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
