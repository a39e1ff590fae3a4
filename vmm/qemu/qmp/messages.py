"""The messages of QMP as records. One JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from vmm.errors import QmpConnectionError


@attrs.frozen(kw_only=True)
class Greeting:
    """QEMU's first message."""

    qemu_version: tuple[int, int, int]
    package: str = ""
    capabilities: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Success:
    """QEMU executed command `id`."""

    id: int | None
    value: Any


@attrs.frozen(kw_only=True)
class Failure:
    """QEMU refused command `id`; None if QEMU could not read the command's id."""

    id: int | None
    error_class: str
    description: str


@attrs.frozen(kw_only=True)
class Event:
    """An event in QEMU. `time_s` is the host's clock as QEMU read it, in seconds since 1970."""

    name: str
    data: Mapping[str, Any]
    time_s: float


Message = Greeting | Success | Failure | Event


def encode_command(name: str, arguments: Mapping[str, Any], *, command_id: int) -> bytes:
    """Encodes a command as a line. Raises ValueError or TypeError for arguments that JSON cannot express."""
    command: dict[str, Any] = {"execute": name, "id": command_id}
    if arguments:
        command["arguments"] = dict(arguments)
    return json.dumps(command, allow_nan=False).encode("ascii") + b"\n"


def parse_line(line: bytes) -> Message:
    """Parses a line from QEMU. Raises QmpConnectionError if it is not a QMP message."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _not_qmp(line, "not JSON") from error
    if not isinstance(document, dict):
        raise _not_qmp(line, "not an object")
    try:
        return _parse_object(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _not_qmp(line, f"malformed: {error!r}") from error


def _parse_object(document: dict[str, Any]) -> Message:
    match document:
        case {"return": value}:
            return Success(id=_command_id(document), value=value)
        case {"error": {"class": str(error_class), "desc": str(description)}}:
            return Failure(id=_command_id(document), error_class=error_class, description=description)
        case {"event": str(name), "timestamp": {"seconds": seconds, "microseconds": microseconds}}:
            data = document.get("data", {})
            if not isinstance(data, dict):
                raise TypeError("data is not an object")
            return Event(name=name, data=data, time_s=int(seconds) + int(microseconds) / 1e6)
        case {"QMP": {"version": {"qemu": version} as versions, "capabilities": list(capabilities)}}:
            return Greeting(
                qemu_version=(int(version["major"]), int(version["minor"]), int(version["micro"])),
                package=str(versions.get("package", "")),
                capabilities=tuple(str(capability) for capability in capabilities),
            )
    raise ValueError("neither greeting, return, error nor event")


def _command_id(document: dict[str, Any]) -> int | None:
    command_id = document.get("id")
    if command_id is None or type(command_id) is int:
        return command_id
    raise TypeError(f"id {command_id!r} was not sent by vmpool")


def _not_qmp(line: bytes, why: str) -> QmpConnectionError:
    start = line[:80].decode("utf-8", "backslashreplace")
    return QmpConnectionError(f"the peer does not speak QMP ({why}): {start!r}; check that this is a QMP socket")
