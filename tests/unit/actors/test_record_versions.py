"""What is on disk, version by version: golden files, which no change in memory may touch.

A difference here ends the leases of whoever updates vmpool: see docs/versioning.md before a file is changed. Those of
version 2 were written by the services that wrote it.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from actors.record import LeaseRecord, VmRecord
from actors.records import v2, v3
from actors.records.codec import decode, encode
from pool.rpc.convert import MAX_NAME_BYTES
from pool.rpc.leases import MAX_LABEL_BYTES, MAX_LABEL_KEY, MAX_LABELS, MAX_LEASE_NAME
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

GOLDEN = Path(__file__).with_name("golden")

REPORT = PreparationReport(
    reseeded=True,
    wall_clock_ns=1764547200 * 10**9,
    hostname="guest-1",
    cpus_online=2,
    memory_mib=480,
    memory_online_mib=512,
    random=b"drawn in secret",
    machine_id="0123456789abcdef0123456789abcdef",
    vm_uuid="4f9d1c1e-0000-4000-8000-00000000002a",
)
TIMINGS = HandOutTimings(grow_s=0.25, resume_s=0.001, prepare_s=0.002, total_s=0.253)
TERMS = LeaseTerms(
    lease_id="lease-1",
    owner_uid=1000,
    request=LeaseRequest(key="job-7", ttl_s=600.0),
    fencing_token=7,
    queued_s=0.5,
    was_ready=True,
)
IDLE = VmRecord(
    vm_id="vm-1",
    profile="default",
    generation="f1",
    made_by=ProducerKind.TEMPLATE,
    backend=BackendKind.QEMU,
    process=ProcessIdentity(pid=4242, start_time=777),
    boot_id="4f9d1c1e-boot",
    made_at_ns=10**11,
    lease=None,
)
LEASE = LeaseRecord(terms=TERMS, granted_at_ns=10**12, expires_at_ns=1600 * 10**9, report=REPORT, timings=TIMINGS)
LEASED = attrs.evolve(IDLE, lease=LEASE)
HELD = attrs.evolve(
    IDLE,
    vm_id="vm-2",
    made_by=ProducerKind.DIRECT,
    lease=LeaseRecord(
        terms=LeaseTerms(lease_id="lease-2", owner_uid=0, request=LeaseRequest(bound=True), fencing_token=8),
        granted_at_ns=10**12,
        expires_at_ns=None,
        report=attrs.evolve(
            REPORT, reseeded=False, hostname="g\u00fcst", memory_online_mib=None, machine_id="", vm_uuid=""
        ),
        timings=HandOutTimings(resume_s=0.001, prepare_s=0.002, total_s=0.003),
    ),
)
LABELS = {"job": "7", "team/name": "g\u00fcst"}
LABELLED = attrs.evolve(
    LEASED,
    lease=attrs.evolve(LEASE, terms=attrs.evolve(TERMS, request=attrs.evolve(TERMS.request, labels=LABELS))),
)
NAMED = attrs.evolve(
    LEASED, lease=attrs.evolve(LEASE, terms=attrs.evolve(TERMS, request=attrs.evolve(TERMS.request, name="builder-1")))
)
RECORDS = {"idle": IDLE, "leased": LEASED, "held": HELD, "labelled": LABELLED}
LATEST = RECORDS | {"named": NAMED}


def golden(version: int, name: str) -> bytes:
    return (GOLDEN / f"version-{version}-{name}.json").read_bytes()


@pytest.mark.parametrize("name", RECORDS)
def test_version_2_is_read(name: str) -> None:
    assert decode(golden(2, name)) == RECORDS[name]


@pytest.mark.parametrize("name", LATEST)
def test_version_3_is_read_and_written(name: str) -> None:
    assert decode(golden(3, name)) == LATEST[name]
    assert encode(LATEST[name]) == golden(3, name).rstrip()


@pytest.mark.parametrize("worst", ["\0", "\N{SNOWMAN}", "\N{GRINNING FACE}"])
def test_the_largest_labels_fit_into_a_record(worst: str) -> None:
    """Whatever is in them: a hand-out that cannot be recorded is lost."""
    value = worst * (MAX_LABEL_BYTES // len(worst.encode()))
    labels = {f"{number:02}".ljust(MAX_LABEL_KEY, "k"): value for number in range(MAX_LABELS)}
    request = attrs.evolve(TERMS.request, labels=labels, key="\0" * MAX_NAME_BYTES, name="n" * MAX_LEASE_NAME)
    lease = attrs.evolve(LEASE, terms=attrs.evolve(TERMS, request=request))
    assert decode(encode(attrs.evolve(LEASED, lease=lease))).lease == lease


def test_a_lease_of_version_2_has_no_name() -> None:
    lease = decode(golden(2, "leased")).lease
    assert lease is not None
    assert lease.terms.request.name == ""


@pytest.mark.parametrize(("version", "other"), [(2, 3), (3, 2)])
def test_a_version_has_its_own_keys_and_no_others(version: int, other: int) -> None:
    """What says that it is one and is the other is neither."""
    table = json.loads(golden(version, "leased")) | {"version": other}
    with pytest.raises(Exception, match=r"is missing|unknown keys"):
        decode(json.dumps(table).encode())


def longer(record: Any) -> Any:
    """The same, of a class that has one more field."""
    fields = {"more": attrs.field(default="in memory only", kw_only=True)}
    bases = (type(record),)
    kind = attrs.make_class(f"Longer{type(record).__name__}", fields, bases=bases, frozen=True, kw_only=True)
    return kind(**attrs.asdict(record, recurse=False))


@pytest.mark.parametrize(
    "lease",
    [
        attrs.evolve(LEASE, report=longer(REPORT)),
        attrs.evolve(LEASE, timings=longer(TIMINGS)),
        attrs.evolve(LEASE, terms=longer(TERMS)),
        attrs.evolve(LEASE, terms=attrs.evolve(TERMS, request=longer(TERMS.request))),
    ],
    ids=["report", "timings", "terms", "request"],
)
def test_one_more_field_in_memory_changes_nothing_on_disk(lease: LeaseRecord) -> None:
    assert encode(attrs.evolve(LEASED, lease=lease)) == golden(3, "leased").rstrip()


@pytest.mark.parametrize("version", [v2, v3])
def test_what_is_on_disk_shares_no_class_with_what_is_in_memory(version: Any) -> None:
    """One field less in memory is then an error of types, in the conversion."""
    todo, seen = [version.Vm], set()
    while todo:
        kind = todo.pop()
        seen.add(kind)
        assert kind.__module__.startswith("actors.records."), kind
        types = inspect.get_annotations(kind, eval_str=True).values()
        inner = {part for each in types for part in (each, *getattr(each, "__args__", ()))}
        todo += [part for part in inner if attrs.has(part) and part not in seen]
    assert len(seen) == 5, "a machine, its process, its lease, what its guest said, and how long that took"
