"""The statuses of what guests refuse, by the code of the refusal: see the comments in proto/vmpool/v1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.rpc.errors import OBSTACLES, guest_status
from vmm.errors import AgentRequestError


@attrs.frozen(kw_only=True)
class GuestStatuses:
    """A table; it has a status for every code, whatever a guest makes up."""

    by_code: Mapping[str, Status]
    otherwise: Status | None = None
    """Of all other codes. None: by the obstacle that they stand for."""

    def of(self, refusal: AgentRequestError) -> Status:
        return self.by_code.get(refusal.code, self.otherwise or OBSTACLES[refusal.obstacle])

    def error(self, refusal: AgentRequestError, *, path: bytes = b"") -> GRPCError:
        """`path` goes with the details."""
        return guest_status(refusal, self.of(refusal), path=path.decode(errors="backslashreplace"))


def _table(statuses: Mapping[Status, str]) -> Mapping[str, Status]:
    return {code: status for status, codes in statuses.items() for code in codes.split()}


_FULL: Final = "EAGAIN EMFILE ENFILE ENOMEM ENOBUFS"

COMMANDS: Final = GuestStatuses(by_code=_table({Status.FAILED_PRECONDITION: "ENOTTY"}))

PROCESSES: Final = GuestStatuses(
    by_code=_table(
        {
            Status.NOT_FOUND: "ESRCH",
            Status.ALREADY_EXISTS: "EEXIST",
            Status.FAILED_PRECONDITION: "EBUSY ENOTTY EPIPE",
        }
    )
)

FILES: Final = GuestStatuses(
    by_code=_table(
        {
            Status.INVALID_ARGUMENT: "BAD_REQUEST EINVAL EISDIR ELOOP ENAMETOOLONG ENOTDIR",
            Status.NOT_FOUND: "ENOENT",
            Status.ALREADY_EXISTS: "EEXIST ENOTEMPTY",
            Status.PERMISSION_DENIED: "EACCES EPERM EROFS",
            Status.RESOURCE_EXHAUSTED: f"{_FULL} EDQUOT EFBIG ENOSPC",
        }
    ),
    otherwise=Status.FAILED_PRECONDITION,
)

PORTS: Final = GuestStatuses(
    by_code=_table(
        {
            Status.INVALID_ARGUMENT: "BAD_REQUEST EADDRNOTAVAIL EAFNOSUPPORT EINVAL ELOOP ENAMETOOLONG ENOTDIR "
            "EPROTOTYPE",
            Status.ALREADY_EXISTS: "EADDRINUSE",
            Status.PERMISSION_DENIED: "EACCES EPERM EROFS",
            Status.RESOURCE_EXHAUSTED: f"{_FULL} ENOSPC",
            Status.UNAVAILABLE: "ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH ENETUNREACH ENOENT EPIPE ETIMEDOUT",
        }
    ),
    otherwise=Status.FAILED_PRECONDITION,
)

ACCEPTING: Final = GuestStatuses(by_code={**PORTS.by_code, "ENOENT": Status.NOT_FOUND}, otherwise=PORTS.otherwise)
"""Of a connection that is taken: ENOENT is one that is gone."""

USAGE: Final = GuestStatuses(by_code={})
