"""The details of an error in `grpc-status-details-bin`: for programs, what the status's message says to people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs
from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase

from vmpool.wire.generated.vmpool import status as wire

GUEST: Final = "guest"
"""Domain of the guest's errors; the reason is the name of an errno, or a code of the agent's own."""

POOL: Final = "vmpool"
"""Domain of the service's refusals; the reason is the name of a RefusalCode, or INVALID_FIELD."""

MAX_MESSAGE_CHARACTERS: Final = 256
"""Of the copy of the status's message. All headers of an error together must be below 8 KiB."""

INVALID_FIELD: Final = "INVALID_FIELD"

_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"


@attrs.frozen(kw_only=True)
class ErrorDetail:
    """As google.rpc.ErrorInfo."""

    reason: str
    domain: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)


class DetailsCodec(StatusDetailsCodecBase):
    """ErrorDetails as google.rpc.ErrorInfo; others are passed over when they are read."""

    def encode(self, status: Status, message: str | None, details: Iterable[ErrorDetail]) -> bytes:
        return bytes(
            wire.Status(
                code=status.value,
                message=(message or "")[:MAX_MESSAGE_CHARACTERS],
                details=[wire.Detail(type_url=_ERROR_INFO, value=_error_info(detail)) for detail in details],
            )
        )

    def decode(self, status: Status, message: str | None, data: bytes) -> tuple[ErrorDetail, ...]:  # noqa: ARG002 - grpclib's
        """Nothing for bytes that are no such message: the status itself must still reach its reader."""
        try:
            infos = [
                wire.ErrorInfo.parse(detail.value)
                for detail in wire.Status.parse(data).details
                if detail.type_url == _ERROR_INFO
            ]
        except Exception:  # noqa: BLE001 - parsers raise all kinds of errors, down to IndexError
            return ()
        return tuple(
            ErrorDetail(reason=info.reason, domain=info.domain, metadata=dict(info.metadata)) for info in infos
        )


def _error_info(detail: ErrorDetail) -> bytes:
    return bytes(wire.ErrorInfo(reason=detail.reason, domain=detail.domain, metadata=dict(detail.metadata)))
