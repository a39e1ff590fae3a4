"""A VM's record as bytes: the latest version is written, it and the previous one are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from actors.record import VmRecord
from actors.records import v2, v3
from actors.records.strict import RecordError, structure, unstructure

MAX_RECORD_BYTES: Final = 64 * 1024
"""A record has some 1500 bytes; a guest can lengthen it with its hostname."""

_READ: Final[Mapping[int, type[v2.Vm | v3.Vm]]] = {2: v2.Vm, v3.VERSION: v3.Vm}


def encode(record: VmRecord) -> bytes:
    """The record as JSON. Raises RecordError for a record that `decode` would refuse."""
    table = unstructure(v3.written(record))
    try:
        data = json.dumps(table, allow_nan=False).encode("ascii")
    except ValueError as error:
        raise RecordError(key="", reason=f"cannot be written as JSON: {error}") from error
    # Checks as `decode` does, but without parsing the JSON again: a caller waits for this.
    _check_size(data)
    structure(table, v3.Vm)
    return data


def decode(data: bytes) -> VmRecord:
    """The record that this or the previous version of the service encoded. Raises RecordError for anything else."""
    _check_size(data)
    try:
        table = json.loads(data.decode("utf-8"), object_pairs_hook=_table, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(key="", reason=f"is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise RecordError(key="", reason="is not a JSON object")
    version = table.get("version")
    if type(version) is not int or version not in _READ:
        known = " or ".join(map(str, _READ))
        raise RecordError(
            key="version", reason=f"must be {known}, not {version!r:.40}; another vmpool wrote this record"
        )
    return structure(table, _READ[version]).in_memory()


def _check_size(data: bytes) -> None:
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(key="", reason=f"is longer than {MAX_RECORD_BYTES} bytes")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("an object has a key twice")
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
