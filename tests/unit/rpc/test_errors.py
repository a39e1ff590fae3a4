"""The table of statuses is complete, and reads errors out of whatever they are wrapped in."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.core.requests import RefusedError
from pool.ledger.effects import Refusal, RefusalCode
from pool.rpc.errors import ERRORS, MAX_TEXT_BYTES, OBSTACLES, REFUSALS, InvalidRequestError, shorten, to_status
from vmm.errors import AgentRequestError, AgentUnreachableError, SpecError, VmmError
from vmm.words.facts import Obstacle


def test_every_refusal_has_a_status() -> None:
    assert set(REFUSALS) == set(RefusalCode)


def test_every_error_of_a_vm_has_a_status_and_none_is_unknown() -> None:
    def kinds(of: type[Exception]) -> set[type[Exception]]:
        return {of}.union(*(kinds(kind) for kind in of.__subclasses__()))

    for kind in kinds(VmmError):
        assert any(ancestor in ERRORS for ancestor in kind.__mro__)
    assert set(OBSTACLES) == set(Obstacle)
    assert Status.UNKNOWN not in {*ERRORS.values(), *REFUSALS.values()}


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InvalidRequestError(field="profile", reason="is odd"), Status.INVALID_ARGUMENT, "profile: is odd"),
        (SpecError(field="vcpus", value=0, reason="too few"), Status.INVALID_ARGUMENT, "vcpus = 0: too few"),
        (AgentUnreachableError("mute"), Status.UNAVAILABLE, "mute"),
        (
            AgentRequestError(request="put", code="ENOSPC", message="full"),
            Status.RESOURCE_EXHAUSTED,
            "guest agent refused put: ENOSPC: full",
        ),
        (
            AgentRequestError(request="get", code="ENOENT", message="no such file"),
            Status.INVALID_ARGUMENT,
            "guest agent refused get: ENOENT: no such file",
        ),
        (
            AgentRequestError(request="exec", code="UNSUPPORTED", message="use another agent"),
            Status.FAILED_PRECONDITION,
            "guest agent refused exec: UNSUPPORTED: use another agent",
        ),
        (
            RefusedError(Refusal(code=RefusalCode.FOREIGN_LEASE, message="not yours")),
            Status.PERMISSION_DENIED,
            "not yours",
        ),
        (GRPCError(Status.UNIMPLEMENTED, "compressed"), Status.UNIMPLEMENTED, "compressed"),
    ],
)
def test_an_error_keeps_its_status_through_nurseries(error: Exception, status: Status, text: str) -> None:
    for wrapped in (error, ExceptionGroup("", [error]), ExceptionGroup("", [ExceptionGroup("", [error])])):
        found = to_status(wrapped)
        assert (found.status, found.message) == (status, text)


@pytest.mark.logs_error("a call failed because of a bug in vmpool")
def test_a_bug_is_internal_and_tells_callers_nothing_but_its_type() -> None:
    found = to_status(ExceptionGroup("", [KeyError("secret")]))
    assert found.status is Status.INTERNAL
    assert "KeyError" in str(found.message)
    assert "secret" not in str(found.message)


@pytest.mark.parametrize("text", ["x" * 5000, "\N{SNOWMAN}" * 5000, "a\udcff" * 3000])
def test_a_long_text_is_cut_to_what_fits_a_header(text: str) -> None:
    cut = shorten(text)
    assert len(cut.encode()) <= MAX_TEXT_BYTES
    assert cut.endswith("...")
    assert shorten("as it is") == "as it is"
