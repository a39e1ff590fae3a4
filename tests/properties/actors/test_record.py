"""A record is read as it was written, whatever it holds; and nothing else is read as one."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.record import LeaseRecord, VmRecord
from actors.records.codec import decode, encode
from actors.records.strict import RecordError
from tests.examples import examples
from tests.unit.actors.test_record import RECORD
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

texts = st.text(max_size=50)
integers = st.integers(-(2**63) + 1, 2**63 - 1)
moments = st.integers(0, 2**63 - 1)
seconds = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10)

reports = st.builds(
    PreparationReport,
    reseeded=st.booleans(),
    wall_clock_ns=integers,
    hostname=texts,
    cpus_online=integers,
    memory_mib=integers,
    memory_online_mib=st.none() | integers,
    machine_id=texts,
    vm_uuid=texts,
)
timings = st.builds(HandOutTimings, grow_s=seconds, resume_s=seconds, prepare_s=seconds, total_s=seconds)
requests = st.builds(
    LeaseRequest,
    key=texts,
    ttl_s=seconds | st.just(math.inf),
    bound=st.booleans(),
    labels=st.dictionaries(texts, texts, max_size=3),
)
terms = st.builds(
    LeaseTerms,
    lease_id=texts,
    owner_uid=st.integers(0, 2**32 - 1),
    request=requests,
    fencing_token=moments,
    queued_s=seconds,
    was_ready=st.booleans(),
)
leases = st.builds(
    LeaseRecord,
    terms=terms,
    granted_at_ns=moments,
    expires_at_ns=st.none() | moments,
    report=reports,
    timings=timings,
)
records = st.builds(
    VmRecord,
    vm_id=texts,
    profile=texts,
    generation=texts,
    made_by=st.sampled_from(ProducerKind),
    backend=st.sampled_from(BackendKind),
    process=st.builds(ProcessIdentity, pid=st.integers(0, 2**22), start_time=integers),
    boot_id=texts,
    made_at_ns=moments,
    lease=st.none() | leases,
)

json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text(st.characters(), max_size=50),  # lone surrogates too
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@examples(200)
@given(record=records)
def test_a_record_is_read_as_it_was_written(record: VmRecord) -> None:
    assert decode(encode(record)) == record


@examples(300)
@given(data=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_record_is_an_error_of_records(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode(data)


def places(table: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every key of a nested table, with the table that it is in."""
    found = []
    for key, value in table.items():
        found.append((table, key))
        if isinstance(value, dict):
            found += places(value)
    return found


@examples(300)
@given(data=st.data(), value=json_values)
def test_a_record_with_another_value_somewhere_is_taken_literally_or_not_at_all(
    data: st.DataObject, value: Any
) -> None:
    table = json.loads(encode(RECORD))
    at, key = data.draw(st.sampled_from(places(table)))
    at[key] = value
    with contextlib.suppress(RecordError):
        assert json.loads(encode(decode(json.dumps(table).encode()))) == table


@examples(200)
@given(data=st.data())
def test_a_record_that_is_cut_or_spoiled_is_an_error_of_records(data: st.DataObject) -> None:
    whole = encode(RECORD)
    spoiled = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if spoiled:
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RecordError):
        decode(bytes(spoiled))
