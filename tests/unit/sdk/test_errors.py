"""What a status becomes in the SDK: its own errors, which are the language's where it has one."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import vmpool
from vmpool import CallError, ClientError, CommandExit, CompletedCommand
from vmpool.client.details import ERROR_INFO, DetailsCodec, error_of
from vmpool.wire.generated.vmpool import status as wire


def raised(status: Status, info: wire.ErrorInfo | None) -> CallError:
    """As it comes from the wire."""
    details = [] if info is None else [wire.Detail(type_url=ERROR_INFO, value=bytes(info))]
    sent = bytes(wire.Status(code=status.value, message="said", details=details))
    return error_of(GRPCError(status, "said", DetailsCodec().decode(status, "said", sent)))


def guest(reason: str) -> wire.ErrorInfo:
    return wire.ErrorInfo(reason=reason, domain="guest", metadata={"path": "/a"})


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ENOENT", FileNotFoundError),
        ("EEXIST", FileExistsError),
        ("ENOTEMPTY", FileExistsError),
        ("EISDIR", IsADirectoryError),
        ("ENOTDIR", NotADirectoryError),
        ("EACCES", PermissionError),
        ("EROFS", PermissionError),
        ("ESRCH", ProcessLookupError),
        ("ECONNREFUSED", ConnectionRefusedError),
        ("ENOSPC", OSError),
    ],
)
def test_an_errno_of_the_guest(reason: str, kind: type[OSError]) -> None:
    error = raised(Status.NOT_FOUND, guest(reason))
    assert kind in type(error).__mro__
    assert isinstance(error, vmpool.GuestError)
    assert (error.errno, error.filename, error.reason) == (getattr(errno, reason), "/a", reason)
    assert (str(error), error.status) == ("said", "NOT_FOUND")


@pytest.mark.parametrize("reason", ["UNSUPPORTED", "BAD_REQUEST", "errorcode", "__doc__", ""])
def test_a_reason_that_is_no_errno(reason: str) -> None:
    error = raised(Status.FAILED_PRECONDITION, guest(reason))
    assert (type(error), error.reason) == (CallError, reason)


def test_a_refusal_of_the_pool() -> None:
    error = raised(Status.FAILED_PRECONDITION, wire.ErrorInfo(reason="LEASE_ENDED", domain="vmpool"))
    assert (type(error), error.reason) == (CallError, "LEASE_ENDED")


def test_a_deadline_is_a_timeout() -> None:
    error = raised(Status.DEADLINE_EXCEEDED, None)
    assert isinstance(error, TimeoutError)
    assert str(error) == "said"


@pytest.mark.parametrize("details", [b"", b"\xff", b"\x1a\x7f", b"\x1a\x02\x0a\xff", bytes(wire.Status(code=5))])
def test_details_that_are_none_count_as_none(details: bytes) -> None:
    assert DetailsCodec().decode(Status.NOT_FOUND, None, details) is None


@pytest.mark.parametrize(
    "error",
    [
        raised(Status.NOT_FOUND, guest("ENOENT")),
        raised(Status.UNAVAILABLE, guest("ECONNREFUSED")),
        raised(Status.DEADLINE_EXCEEDED, None),
        raised(Status.FAILED_PRECONDITION, wire.ErrorInfo(reason="LEASE_ENDED", domain="vmpool")),
        vmpool.CommandError(
            command="false", completed=CompletedCommand(exit=CommandExit(status=1), stdout="", stderr="no\n")
        ),
        vmpool.OutputTooLargeError(limit=1, stdout=b"xy", stderr=b""),
        vmpool.UnsafeTreeError(member="../x", reason="leaves the directory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_they_come_out_of_another_process_as_they_went_in(error: ClientError) -> None:
    error.add_note("in a worker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
        for name in ("errno", "filename", "strerror"):
            assert getattr(again, name, None) == getattr(error, name, None)


def test_a_command_error_says_the_last_line_and_no_more() -> None:
    completed = CompletedCommand(
        exit=CommandExit(signal=9, out_of_memory=True), stdout="", stderr="first\n\x1b[2Jlast\n"
    )
    error = vmpool.CommandError(command="make", completed=completed)
    assert str(error) == "make: was ended by signal 9, because the guest ran out of memory: '\\x1b[2Jlast'"
