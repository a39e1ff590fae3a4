"""What of a record is taken, and how what is wrong with it is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from actors.record import LeaseRecord, VmRecord, expiry_ns
from actors.records.codec import MAX_RECORD_BYTES, decode, encode
from actors.records.strict import RecordError
from tests.unit.actors.stage import BOOT_ID, TERMS, wanting
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

REPORT = PreparationReport(
    reseeded=True, wall_clock_ns=42, hostname="guest-1", cpus_online=1, memory_mib=224, random=b"drawn in secret"
)
LEASE = LeaseRecord.grant(
    TERMS, now_ns=10**12, report=REPORT, timings=HandOutTimings(resume_s=0.001, prepare_s=0.002, total_s=0.003)
)
RECORD = VmRecord(
    vm_id="vm-1",
    profile="default",
    generation="f1",
    made_by=ProducerKind.TEMPLATE,
    backend=BackendKind.QEMU,
    process=ProcessIdentity(pid=4242, start_time=777),
    boot_id=BOOT_ID,
    made_at_ns=10**11,
    lease=LEASE,
)


def table() -> dict[str, Any]:
    """The record as JSON has it, to be spoiled."""
    parsed: dict[str, Any] = json.loads(encode(RECORD))
    return parsed


def refusal(data: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        decode(data)
    return caught.value


@pytest.mark.parametrize("record", [RECORD, attrs.evolve(RECORD, lease=None)], ids=["leased", "base"])
def test_a_record_is_read_as_it_was_written(record: VmRecord) -> None:
    assert decode(encode(record)) == record


def test_what_the_guest_drew_from_its_generator_is_not_recorded() -> None:
    assert LEASE.report == attrs.evolve(REPORT, random=b"")
    assert b"random" not in encode(RECORD)


def test_a_lease_begins_with_the_end_of_its_hand_out() -> None:
    assert (LEASE.granted_at_ns, LEASE.expires_at_ns) == (10**12, 10**12 + 600 * 10**9)


@pytest.mark.parametrize("ttl_s", [math.inf, 1e300])
def test_a_lease_without_end(ttl_s: float) -> None:
    assert expiry_ns(now_ns=5, expires_in_s=ttl_s) is None


@pytest.mark.parametrize(("claimed", "granted", "recorded"), [(2**40, 512, 512), (512, 500, 500), (2**40, None, 0)])
def test_of_the_memory_that_a_guest_claims_what_was_granted_is_recorded(
    claimed: int, granted: int | None, recorded: int
) -> None:
    """It counts for the budget of the next run, and a guest says what it likes."""
    report = attrs.evolve(REPORT, memory_online_mib=claimed)
    terms = wanting(memory_mib=granted).terms
    lease = LeaseRecord.grant(terms, now_ns=0, report=report, timings=LEASE.timings)
    assert lease.report.memory_online_mib == recorded


WRONG: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("", lambda t: t.update(more=1), "unknown keys: 'more'"),
    ("version", lambda t: t.pop("version"), "must be 2 or 3, not None"),
    ("version", lambda t: t.update(version=4), "must be 2 or 3, not 4; another vmpool wrote this record"),
    ("version", lambda t: t.update(version=True), "must be 2 or 3, not True"),
    ("vm_id", lambda t: t.pop("vm_id"), "is missing"),
    ("vm_id", lambda t: t.update(vm_id=7), "must be a string, not 7"),
    ("made_by", lambda t: t.update(made_by="magic"), "'magic' is not one of"),
    ("made_by", lambda t: t.update(made_by=7), "must be a string, not 7"),
    ("backend", lambda t: t.update(backend="magic"), "'magic' is not one of"),
    ("backend", lambda t: t.pop("backend"), "is missing"),
    ("made_at_ns", lambda t: t.update(made_at_ns=-1), "must be between 0"),
    ("made_at_ns", lambda t: t.update(made_at_ns=10**30), "must be within 64 bits"),
    ("process", lambda t: t.update(process=[1, 2]), "must be an object"),
    ("process.pid", lambda t: t["process"].update(pid="1"), "must be a whole number"),
    ("process.pid", lambda t: t["process"].update(pid=True), "must be a whole number"),
    ("process.pid", lambda t: t["process"].update(pid=2**31), "must be between 0 and 4194304"),
    ("lease", lambda t: t.pop("lease"), "is missing"),
    ("lease", lambda t: t.update(lease="none"), "must be an object"),
    ("lease.bound", lambda t: t["lease"].update(bound=0), "must be true or false"),
    ("lease.owner_uid", lambda t: t["lease"].update(owner_uid=2**32), "must be between 0"),
    ("lease.owner_uid", lambda t: t["lease"].update(owner_uid=-1), "must be between 0"),
    ("lease.labels", lambda t: t["lease"].pop("labels"), "is missing"),
    ("lease.labels", lambda t: t["lease"].update(labels=["job"]), "must be an object"),
    ("lease.labels.job", lambda t: t["lease"].update(labels={"job": 7}), "must be a string"),
    ("lease.labels.job", lambda t: t["lease"].update(labels={"job": "\ud800"}), r"must be Unicode text, not '\ud800'"),
    (
        r"lease.labels.\ud800",
        lambda t: t["lease"].update(labels={"\ud800": "job"}),
        r"must be Unicode text, not '\ud800'",
    ),
    ("lease.lease_id", lambda t: t["lease"].update(lease_id="\udc80"), r"must be Unicode text, not '\udc80'"),
    ("lease.ttl_s", lambda t: t["lease"].update(ttl_s="long"), "must be a number"),
    ("lease.expires_at_ns", lambda t: t["lease"].update(expires_at_ns=-1), "must be between 0"),
    ("lease.expires_at_ns", lambda t: t["lease"].pop("expires_at_ns"), "is missing"),
    ("lease.expires_at_ns", lambda t: t["lease"].update(expires_at_ns="never"), "must be a whole number"),
    ("lease.report", lambda t: t["lease"]["report"].update(random="drawn"), "unknown keys: 'random'"),
    ("lease.report.vm_uuid", lambda t: t["lease"]["report"].pop("vm_uuid"), "is missing"),
    ("lease.timings.grow_s", lambda t: t["lease"]["timings"].pop("grow_s"), "is missing"),
    ("lease.timings.total_s", lambda t: t["lease"]["timings"].update(total_s="0.1"), "must be a number"),
]


@pytest.mark.parametrize(("key", "spoil", "reason"), WRONG, ids=[f"{key}: {reason}" for key, _, reason in WRONG])
def test_what_is_wrong_is_named(key: str, spoil: Callable[[dict[str, Any]], object], reason: str) -> None:
    spoiled = table()
    spoil(spoiled)
    error = refusal(json.dumps(spoiled).encode())
    assert error.key == key
    assert reason in error.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 50_000, "not JSON"),
        (b'{"version": 1, "version": 1}', "a key twice"),
        (encode(RECORD).replace(b"0.001", b"NaN"), "NaN is not a JSON number"),
        (encode(RECORD).replace(b"0.001", b"1e999"), "must be finite"),
        (encode(RECORD).replace(b"4242", b"4" * 5000), "not JSON"),
        (encode(RECORD)[:-1], "not JSON"),
        (encode(RECORD) + b" " * MAX_RECORD_BYTES, "is longer than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_record_at_all(data: bytes, reason: str) -> None:
    assert reason in str(refusal(data))


def test_what_could_not_be_read_is_not_written() -> None:
    """A guest says what its hostname is."""
    long = attrs.evolve(LEASE, report=attrs.evolve(REPORT, hostname="x" * MAX_RECORD_BYTES))
    with pytest.raises(RecordError, match="is longer than"):
        encode(attrs.evolve(RECORD, lease=long))
    with pytest.raises(RecordError, match="cannot be written"):
        encode(attrs.evolve(RECORD, lease=attrs.evolve(LEASE, terms=attrs.evolve(TERMS, queued_s=math.nan))))
    with pytest.raises(RecordError, match=r"lease\.report\.cpus_online: must be within"):
        huge = attrs.evolve(LEASE, report=attrs.evolve(REPORT, cpus_online=2**80))
        encode(attrs.evolve(RECORD, lease=huge))
