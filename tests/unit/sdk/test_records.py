"""What a program may do with the SDK's records and errors: keep them in sets, hand them on, log them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import attrs
import pytest

from vmpool import CallError, ClientError, GuestFile, PoolCounters, ServiceUnavailableError, StopReason, Wishes

COUNTERS = PoolCounters(
    stopped={StopReason.ADMIN: 1}, **{field.name: 0 for field in attrs.fields(PoolCounters) if field.name != "stopped"}
)
WISHES = Wishes(environment={"TOKEN": "xyzzy"}, files=(GuestFile(path="/token", data=b"xyzzy"),))
ERRORS = [
    CallError(status="NOT_FOUND", message="lease_id: there is none"),
    CallError(status="CANCELLED", message=""),
    ServiceUnavailableError(socket_path=Path("/s.sock"), reason="nobody listens", remedy="start it"),
]


@pytest.mark.parametrize("record", [COUNTERS, WISHES], ids=lambda record: type(record).__name__)
def test_records_are_values(record: object) -> None:
    again = pickle.loads(pickle.dumps(record))
    assert {record} == {again}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_come_out_of_another_process_as_they_went_in(error: ClientError) -> None:
    error.add_note("in a worker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_secrets_are_not_shown() -> None:
    assert "xyzzy" not in repr(WISHES)
