"""The record of a VM: what a later run of the service needs to know to adopt it, and how that is written down.

A record is read by a service that did not write it, perhaps an older or newer one, and it holds what a guest said. So
it is taken literally or not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from vmm.words.facts import HandOutTimings
from vmm.words.kinds import ProducerKind
from vmm.words.leases import LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

FORMAT_VERSION: Final = 1

MAX_RECORD_BYTES: Final = 64 * 1024
"""A record has some 1500 bytes; a guest can lengthen it by its hostname."""

_MAX_INTEGER: Final = 2**63 - 1
_MAX_PID: Final = 2**22
"""What Linux allows /proc/sys/kernel/pid_max to be."""

_NS: Final = 1_000_000_000
_FOREVER_S: Final = 100 * 365 * 86400


class RecordError(Exception):
    """A record cannot be used, or cannot be written. `key` is where, empty for the whole of it."""

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key = key
        self.reason = reason


def _without_random_bytes(report: PreparationReport) -> PreparationReport:
    # Nobody shall read from our files what a guest drew from its generator.
    return attrs.evolve(report, random=b"")


def _between(low: int, high: int) -> Callable[[object, attrs.Attribute[int], int], None]:
    def check(_record: object, field: attrs.Attribute[int], value: int) -> None:
        if not low <= value <= high:
            raise ValueError(f"'{field.name}' must be between {low} and {high}, not {value}")

    return check


_moment: Final = _between(0, _MAX_INTEGER)


def _possible(_record: object, _field: attrs.Attribute[ProcessIdentity], process: ProcessIdentity) -> None:
    if not 0 <= process.pid <= _MAX_PID:
        raise ValueError(f"'process.pid' must be between 0 and {_MAX_PID}, not {process.pid}")


@attrs.frozen(kw_only=True)
class LeaseRecord:
    """A lease as it was granted, and last renewed. Times are nanoseconds on the host's CLOCK_BOOTTIME."""

    lease_id: str
    owner_uid: int = attrs.field(validator=_between(0, 2**32 - 1))
    key: str
    """Idempotency key; empty for none."""
    granted_at_ns: int = attrs.field(validator=_moment)
    expires_at_ns: int | None = attrs.field(validator=attrs.validators.optional(_moment))
    """None for never."""
    bound: bool
    """Held open by a client's call."""
    fencing_token: int = attrs.field(validator=_moment)
    queued_s: float
    was_ready: bool
    report: PreparationReport = attrs.field(converter=_without_random_bytes)
    timings: HandOutTimings

    @classmethod
    def grant(
        cls,
        terms: LeaseTerms,
        *,
        now_ns: int,
        report: PreparationReport,
        timings: HandOutTimings,
        granted_mib: int | None = None,
    ) -> LeaseRecord:
        """The record of a lease whose hand-out is done just now.

        Of the memory that the guest says it has, no more is recorded than the host granted: it counts for the budget of
        the next run.
        """
        if report.memory_online_mib is not None:
            online_mib = min(report.memory_online_mib, granted_mib or 0)
            report = attrs.evolve(report, memory_online_mib=online_mib)
        return cls(
            lease_id=terms.lease_id,
            owner_uid=terms.owner_uid,
            key=terms.request.key,
            granted_at_ns=now_ns,
            expires_at_ns=expiry_ns(now_ns=now_ns, expires_in_s=terms.request.ttl_s),
            bound=terms.request.bound,
            fencing_token=terms.fencing_token,
            queued_s=terms.queued_s,
            was_ready=terms.was_ready,
            report=report,
            timings=timings,
        )


@attrs.frozen(kw_only=True)
class VmRecord:
    """A VM that may be adopted: a base VM, or a leased one."""

    version: int = FORMAT_VERSION
    vm_id: str
    profile: str
    generation: str
    made_by: ProducerKind
    process: ProcessIdentity = attrs.field(validator=_possible)
    boot_id: str
    """Of the host's boot in which the process runs; in another one its pid means nothing."""
    made_at_ns: int = attrs.field(validator=_moment)
    """When it became ready, on CLOCK_BOOTTIME."""
    lease: LeaseRecord | None


def expiry_ns(*, now_ns: int, expires_in_s: float) -> int | None:
    """The moment in so many seconds; None for never, or for longer than any host is up."""
    return None if expires_in_s > _FOREVER_S else now_ns + int(expires_in_s * _NS)


def encode(record: VmRecord) -> bytes:
    """The record as JSON. Raises RecordError for what `decode` would not take: what cannot be read is not written."""
    table = _converter.unstructure(record)
    try:
        data = json.dumps(table, allow_nan=False).encode("ascii")
    except ValueError as error:
        raise RecordError(key="", reason=f"cannot be written as JSON: {error}") from error
    # What `decode` would do, but for JSON, which gives back what it was given: a caller waits for this.
    _check_size(data)
    _structure(table)
    return data


def decode(data: bytes) -> VmRecord:
    """The record that `encode` was given. Raises RecordError for anything else."""
    _check_size(data)
    try:
        table = json.loads(data.decode("utf-8"), object_pairs_hook=_table, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(key="", reason=f"is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise RecordError(key="", reason="is not a JSON object")
    record = _structure(table)
    _check_whole(table, _converter.unstructure(record))
    return record


def _check_size(data: bytes) -> None:
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(key="", reason=f"has {len(data)} bytes, which is more than {MAX_RECORD_BYTES}")


def _structure(table: dict[str, Any]) -> VmRecord:
    version = table.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise RecordError(
            key="version", reason=f"must be {FORMAT_VERSION}, not {version!r:.40}; another vmpool wrote this record"
        )
    try:
        return _converter.structure(table, VmRecord)
    except cattrs.BaseValidationError as error:
        first, *_ = cattrs.transform_error(error, format_exception=_say)
        raise _record_error(first) from error


def _check_whole(table: dict[str, Any], whole: dict[str, Any], *, place: str = "") -> None:
    """Our classes have defaults, for those who make them; a record that was written has every key."""
    for key, value in whole.items():
        if key not in table:
            raise RecordError(key=f"{place}{key}", reason="is missing")
        if isinstance(value, dict):
            _check_whole(table[key], value, place=f"{place}{key}.")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("an object has a key twice")
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _literally(kind: type[Any], value: Any, *, expected: str) -> Any:
    """JSON has types, and "2" is not 2."""
    if type(value) is not kind:
        raise TypeError(f"must be {expected}, not {value!r:.40}")
    return value


def _integer(value: Any, _: Any) -> int:
    integer: int = _literally(int, value, expected="a whole number")
    if abs(integer) > _MAX_INTEGER:
        raise ValueError(f"must be within 64 bits, not {integer!r:.40}")
    return integer


def _integer_or_none(value: Any, kind: Any) -> int | None:
    return None if value is None else _integer(value, kind)


def _number(value: Any, kind: Any) -> float:
    if type(value) is not int:
        return _finite(value)
    integer = _integer(value, kind)
    if int(float(integer)) != integer:
        raise ValueError(f"must be a number that is not rounded, not {integer}")
    return float(integer)


def _finite(value: Any) -> float:
    number: float = _literally(float, value, expected="a number")
    if not math.isfinite(number):
        raise ValueError(f"must be finite, not {number}")
    return number


def _say(error: BaseException, _kind: type[Any] | None) -> str:
    match error:
        case cattrs.ForbiddenExtraKeysError():
            return f"has keys that are not known: {', '.join(sorted(error.extra_fields))!r:.80}"
        case KeyError():
            return "is missing"
        case TypeError() if str(error).startswith("must be"):
            return str(error)
        case TypeError() | AttributeError():
            return "must be an object"  # cattrs asked something else for its items
        case _:
            return str(error)


def _record_error(fault: str) -> RecordError:
    """`must be ... @ $.lease.owner_uid`, or `'owner_uid' must be ... @ $.lease`, in its parts."""
    reason, _, where = fault.rpartition(" @ $")
    key = re.sub(r"\['([^']*)'\]", r".\1", where).lstrip(".")
    named = re.match(r"'([\w.]+)' (must .*)", reason, re.DOTALL)
    if named:
        key, reason = f"{key}.{named[1]}".lstrip("."), named[2]
    return RecordError(key=key, reason=reason)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(int | None, _integer_or_none)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, lambda value, _: _literally(str, value, expected="a string"))
    converter.register_structure_hook(bool, lambda value, _: _literally(bool, value, expected="true or false"))
    left_out = override(omit=True)
    converter.register_structure_hook(
        PreparationReport, make_dict_structure_fn(PreparationReport, converter, random=left_out)
    )
    converter.register_unstructure_hook(
        PreparationReport, make_dict_unstructure_fn(PreparationReport, converter, random=left_out)
    )
    return converter


_converter: Final = _make_converter()
