"""The table from vmpool's errors to gRPC statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import h2.exceptions
import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from pool.core.matching import ForbiddenMachineError
from pool.core.requests import RefusedError
from pool.core.watch import TooManyWatchersError
from pool.ledger.effects import Refusal, RefusalCode
from vmm import errors as vmm
from vmm.words.facts import Obstacle
from vmpool.wire.details import GUEST, INVALID_FIELD, POOL, ErrorDetail

_log = structlog.get_logger("vmpool.rpc")

MAX_TEXT_BYTES: Final = 1300
"""Of a status message. It travels as a header, percent-encoded, and clients take 8 KiB of headers."""

MAX_DETAIL_BYTES: Final = 512
"""Of a text in an error's details, which travel as a header too, in base64."""

MAX_REASON_BYTES: Final = 63
"""Of the guest's code, as google.rpc.ErrorInfo has it."""


class InvalidRequestError(Exception):
    """A field of a request is not acceptable. `refusal` is the guest's, if it was the guest that refused the field."""

    def __init__(self, *, field: str, reason: str, refusal: vmm.AgentRequestError | None = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.refusal = refusal


class NotAdministratorError(Exception):
    """The caller is neither root nor the service's user, and the method is for them only."""

    def __init__(self, *, uid: int, service_uid: int) -> None:
        super().__init__(f"uid {uid} may not administer the service; run this as root or as uid {service_uid}")


class CustomMachineError(Exception):
    """The caller described a machine without the permission to do so."""

    def __init__(self, *, uid: int) -> None:
        super().__init__(
            f"config: uid {uid} may not describe a machine; name a profile, or ask the service's administrator to "
            "allow it in access.custom_machines"
        )


class StoppingError(Exception):
    """The service is shutting down."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down; try again later")


class DeadlineError(Exception):
    """The call's deadline has passed."""

    def __init__(self) -> None:
        super().__init__("the deadline of the call has passed; use a longer one")


class TimeLimitError(Exception):
    """A command's time limit is over, and its guest has not reported its end."""

    def __init__(self, *, limit_s: float, silent_s: float) -> None:
        super().__init__(
            f"the command's time limit of {limit_s:g} s is over, and its guest has been silent for {silent_s:g} s "
            "since; the guest may no longer answer: release the lease, or try another command"
        )


class LeaseLostError(Exception):
    """The lease ended while it was being used."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


REFUSALS: Final[Mapping[RefusalCode, Status]] = {
    RefusalCode.UNKNOWN_PROFILE: Status.NOT_FOUND,
    RefusalCode.NOTHING_READY: Status.RESOURCE_EXHAUSTED,
    RefusalCode.DEADLINE: Status.DEADLINE_EXCEEDED,
    RefusalCode.PRODUCTION_FAILED: Status.UNAVAILABLE,
    RefusalCode.HAND_OUT_FAILED: Status.UNAVAILABLE,
    RefusalCode.SHUTTING_DOWN: Status.UNAVAILABLE,
    RefusalCode.OVER_MAXIMUM: Status.INVALID_ARGUMENT,
    RefusalCode.KEY_REUSED: Status.ALREADY_EXISTS,
    RefusalCode.NAME_TAKEN: Status.ALREADY_EXISTS,
    RefusalCode.UNKNOWN_NAME: Status.NOT_FOUND,
    RefusalCode.UNKNOWN_LEASE: Status.NOT_FOUND,
    RefusalCode.FOREIGN_LEASE: Status.PERMISSION_DENIED,
    RefusalCode.LEASE_ENDED: Status.FAILED_PRECONDITION,
    RefusalCode.QUOTA: Status.RESOURCE_EXHAUSTED,
    RefusalCode.CROWDED: Status.RESOURCE_EXHAUSTED,
    RefusalCode.DRAINED: Status.UNAVAILABLE,
    RefusalCode.CIRCUIT_OPEN: Status.UNAVAILABLE,
    RefusalCode.UNKNOWN_VM: Status.NOT_FOUND,
    RefusalCode.VM_NOT_UP: Status.FAILED_PRECONDITION,
    RefusalCode.VM_IN_USE: Status.FAILED_PRECONDITION,
    RefusalCode.ADAPTIVE: Status.FAILED_PRECONDITION,
    RefusalCode.NOT_RECORDED: Status.UNAVAILABLE,
    RefusalCode.WISH_REFUSED: Status.INVALID_ARGUMENT,
    RefusalCode.WISH_TOO_MUCH: Status.RESOURCE_EXHAUSTED,
    RefusalCode.WISH_UNSUPPORTED: Status.FAILED_PRECONDITION,
}

ERRORS: Final[Mapping[type[Exception], Status]] = {
    InvalidRequestError: Status.INVALID_ARGUMENT,
    ForbiddenMachineError: Status.PERMISSION_DENIED,
    NotAdministratorError: Status.PERMISSION_DENIED,
    CustomMachineError: Status.PERMISSION_DENIED,
    StoppingError: Status.UNAVAILABLE,
    DeadlineError: Status.DEADLINE_EXCEEDED,
    LeaseLostError: Status.ABORTED,
    TimeLimitError: Status.DEADLINE_EXCEEDED,
    TooManyWatchersError: Status.RESOURCE_EXHAUSTED,
    vmm.NoRoomError: Status.RESOURCE_EXHAUSTED,
    vmm.SpecError: Status.INVALID_ARGUMENT,
    vmm.MissingFileError: Status.FAILED_PRECONDITION,
    vmm.AcceleratorError: Status.FAILED_PRECONDITION,
    vmm.BootError: Status.UNAVAILABLE,
    vmm.VmExitedError: Status.ABORTED,
    vmm.AgentUnreachableError: Status.UNAVAILABLE,
    vmm.VmmError: Status.INTERNAL,
}
"""The most derived listed class of an error counts."""

OBSTACLES: Final[Mapping[Obstacle, Status]] = {
    Obstacle.REQUEST: Status.INVALID_ARGUMENT,
    Obstacle.EXHAUSTED: Status.RESOURCE_EXHAUSTED,
    Obstacle.UNABLE: Status.FAILED_PRECONDITION,
}
"""Of AgentRequestErrors."""


def to_status(error: BaseException) -> GRPCError:
    """The status for an error that ended a call.

    A group, as raised by a nursery, counts as the first error in it that is in the table.
    """
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, GRPCError):
            return GRPCError(leaf.status, shorten(leaf.message or ""), leaf.details)
        if isinstance(leaf, RefusedError):
            return GRPCError(REFUSALS[leaf.refusal.code], shorten(leaf.refusal.message), _details_of(leaf))
        if isinstance(leaf, vmm.AgentRequestError):
            return guest_status(leaf, OBSTACLES[leaf.obstacle])
        for kind in type(leaf).__mro__:
            if kind in ERRORS:
                return GRPCError(ERRORS[kind], shorten(str(leaf)), _details_of(leaf))
    _log.error("a call failed because of a bug in vmpool", exc_info=error)
    return GRPCError(Status.INTERNAL, f"internal error ({type(leaves[0]).__name__}); see the service's log")


def guest_status(refusal: vmm.AgentRequestError, status: Status, **about: str) -> GRPCError:
    """What the guest refused, as an error of this status. `about` goes with its details."""
    return GRPCError(status, shorten(str(refusal)), (_of_guest(refusal, **about),))


def _of_guest(refusal: vmm.AgentRequestError, **about: str) -> ErrorDetail:
    given = {"part": refusal.part, **about}
    metadata = {name: shorten(value, limit=MAX_DETAIL_BYTES) for name, value in given.items() if value}
    return ErrorDetail(reason=shorten(refusal.code, limit=MAX_REASON_BYTES), domain=GUEST, metadata=metadata)


def _details_of(error: BaseException) -> tuple[ErrorDetail, ...] | None:
    match error:
        case RefusedError() | LeaseLostError():
            return (ErrorDetail(reason=error.refusal.code.name, domain=POOL),)
        case InvalidRequestError(refusal=vmm.AgentRequestError() as refusal, field=field):
            return (_of_guest(refusal, field=field),)
        case InvalidRequestError(field=field):
            metadata = {"field": shorten(field, limit=MAX_DETAIL_BYTES)}
            return (ErrorDetail(reason=INVALID_FIELD, domain=POOL, metadata=metadata),)
        case _:
            return None


def is_of_the_wire(error: BaseException) -> bool:
    """Whether the error only means that a call or its connection had ended."""
    return all(isinstance(leaf, StreamTerminatedError | h2.exceptions.ProtocolError) for leaf in _leaves(error))


def sendable(text: str) -> str:
    """The text with bytes that are not UTF-8 escaped as in Python."""
    return text.encode(errors="backslashreplace").decode()


def shorten(text: str, *, limit: int = MAX_TEXT_BYTES) -> str:
    """At most `limit` bytes of `text`, which is made `sendable`."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]
