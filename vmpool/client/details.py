"""What a status says beyond its code and message: an ErrorInfo in `grpc-status-details-bin`."""

from __future__ import annotations

from typing import Any, Final

from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError

from vmpool.client.errors import CallError, call_error
from vmpool.wire.generated.vmpool import status as wire
from vmpool.wire.wellformed import check_wellformed

ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"


class DetailsCodec(StatusDetailsCodecBase):
    """Finds the first ErrorInfo. Details that are not well-formed count as none: the status itself says enough."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        raise NotImplementedError("a client sends no status")

    def decode(
        self,
        status: Status,  # noqa: ARG002 - grpclib's signature
        message: str | None,  # noqa: ARG002 - idem
        data: bytes,
    ) -> wire.ErrorInfo | None:
        try:
            for detail in _parsed(data, wire.Status).details:
                if detail.type_url == ERROR_INFO:
                    found: wire.ErrorInfo = _parsed(detail.value, wire.ErrorInfo)
                    return found
        except ValueError:
            return None
        return None


def error_of(error: GRPCError) -> CallError:
    """The SDK's error for a status."""
    info = error.details if isinstance(error.details, wire.ErrorInfo) else wire.ErrorInfo()
    return call_error(
        status=error.status.name,
        message=error.message or "",
        reason=info.reason,
        domain=info.domain,
        metadata=info.metadata,
    )


def _parsed(data: bytes, kind: type[Any]) -> Any:
    """Raises ValueError unless `data` is a message of that kind."""
    check_wellformed(memoryview(data), kind)
    return kind.parse(data)
