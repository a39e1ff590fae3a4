"""Kata's records on the wire: whatever is sent is received, and whatever is received is a record or a WireError."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pool.kata.cache.wire import QemuGrpc
from pool.kata.errors import WireError
from pool.kata.records.config import VMConfig
from pool.kata.records.gojson import GoRecord, Struct, decode, differences, encode, fields_of, show
from pool.kata.records.gokinds import Flag, Float32, Generation, Integer, Kind, ListOf, MapOf, Octets, Optional, Text
from pool.kata.records.hypervisor_config import HypervisorConfig
from pool.kata.records.matching import check_config
from tests.examples import examples

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(kind: Kind[Any]) -> st.SearchStrategy[Any]:
    match kind:
        case Text():
            return _TEXTS
        case Flag():
            return st.booleans()
        case Integer():
            return st.integers(kind.low, kind.high)
        case Float32():
            return st.floats(width=32, allow_nan=False, allow_infinity=False)
        case Octets():
            return st.binary(max_size=8)
        case Optional():
            return st.none() | values(kind.content)
        case ListOf():
            return st.lists(values(kind.content), max_size=3).map(tuple)
        case MapOf():
            return st.dictionaries(values(kind.key), values(kind.content), max_size=3)
        case Struct():
            return records(kind.record)
    raise AssertionError(kind)


def records(record: type[GoRecord]) -> st.SearchStrategy[Any]:
    """A few fields of it; the others are left at their zero values."""
    kinds = {field.attribute: field.kind for field in fields_of(record)}
    chosen = st.sets(st.sampled_from(sorted(kinds)), max_size=5)
    return chosen.flatmap(lambda names: st.builds(record, **{name: values(kinds[name]) for name in sorted(names)}))


NAMES = [field.name for record in (VMConfig, HypervisorConfig, QemuGrpc) for field in fields_of(record)]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | _TEXTS, inner, max_size=4),
    max_leaves=12,
)


@examples(80)
@given(st.sampled_from([VMConfig, QemuGrpc]).flatmap(records))
def test_what_is_sent_is_received(record: GoRecord) -> None:
    assert decode(type(record), encode(record)) == record


@examples(50)
@given(records(VMConfig), st.sampled_from(Generation))
def test_each_generation_receives_its_own(config: VMConfig, generation: Generation) -> None:
    received = decode(VMConfig, encode(config, generation))
    assert list(differences(config, received, generation=generation)) == []
    check_config(config, received, generation=generation)
    assert show(received, generation) == show(config, generation)


@examples(80)
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_is_a_record_or_a_wire_error(data: bytes) -> None:
    for record in (VMConfig, HypervisorConfig, QemuGrpc):
        try:
            decoded = decode(record, data)
        except WireError:
            continue
        again = decode(record, encode(decoded))
        assert again == decoded
