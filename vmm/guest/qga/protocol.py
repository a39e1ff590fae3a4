"""qemu-ga's protocol without I/O: JSON objects, one per line, with one answer to each request, in order.

qemu-ga sends no greeting and no sequence numbers. Its answer to `guest-sync-delimited` is preceded by a byte 0xFF,
which JSON cannot contain: anything before it was sent to an earlier host. Sent to qemu-ga, the same byte makes it
discard a partial request.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from typing import Any, Final

import attrs

from vmm.errors import AgentRequestError
from vmm.untrusted import pieces_in, said

DELIMITER: Final = b"\xff"

MAX_LINE: Final = 8 * 2**20
"""The longest line from qemu-ga; it includes a command's output in base64. Protects the host's memory from a guest."""

MAX_PIECES: Final = 2**17
"""Objects, lists and their members in a line: they determine the host's time for parsing it. A command's output is a
single one. The longest honest list is that of a guest's memory blocks: 32768 pieces for a TiB."""


@attrs.frozen(kw_only=True)
class Reply:
    """An answer. Exactly one of `error_class` and a value is meaningful."""

    id: int | None
    value: Any = None
    error_class: str = ""
    description: str = ""


@attrs.frozen
class Delimiter:
    """The answer to a sync follows."""


@attrs.frozen
class Overlong:
    """A line longer than MAX_LINE, which was dropped. With one request at a time it was that request's answer."""


@attrs.frozen(kw_only=True)
class Garbage:
    """A line that is not an answer: the rest of an answer to an earlier host, or a misbehaving guest."""

    line: bytes


Message = Reply | Delimiter | Overlong | Garbage


def encode(name: str, arguments: Mapping[str, Any], *, request_id: int) -> bytes:
    """Encodes one request as a line. Raises TypeError or ValueError for arguments that JSON cannot express."""
    request: dict[str, Any] = {"execute": name, "id": request_id}
    if arguments:
        request["arguments"] = dict(arguments)
    return json.dumps(request).encode() + b"\n"


def encode_sync(number: int, *, request_id: int) -> bytes:
    """Encodes a sync, which resets a channel of unknown state. `Reply.value` returns the number; see `Delimiter`."""
    return DELIMITER + encode("guest-sync-delimited", {"id": number}, request_id=request_id)


_SHOWN: Final = 200
"""Bytes of garbage kept as evidence."""


class Decoder:
    """Bytes in, messages out. Holds at most MAX_LINE bytes."""

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._pieces = 0
        self._overlong = False

    def feed(self, data: bytes) -> list[Message]:
        messages: list[Message] = []
        *ended, begun = data.split(b"\n")
        for rest in ended:
            self._add(rest, messages)
            messages += self._end_line()
        self._add(begun, messages)
        return messages

    def _add(self, data: bytes, messages: list[Message]) -> None:
        """Drops everything in front of a delimiter."""
        *others, piece = data.split(DELIMITER)
        if others:
            self._forget_line()
            messages += [Delimiter()] * len(others)
        self._pieces += pieces_in(piece)
        if self._overlong or len(self._line) + len(piece) > self._max_line:
            self._overlong = True
            self._line.clear()
        else:
            self._line += piece

    def _end_line(self) -> list[Message]:
        line, pieces, overlong = bytes(self._line), self._pieces, self._overlong
        self._forget_line()
        if overlong:
            return [Overlong()]
        if pieces > MAX_PIECES:
            return [Garbage(line=line[:_SHOWN])]
        return [_parse(line)] if line.strip() else []

    def _forget_line(self) -> None:
        self._line = bytearray()
        self._pieces = 0
        self._overlong = False


def refusal(request: str, reply: Reply) -> AgentRequestError:
    """qemu-ga's error as ours. `request` names the operation of our contract: "exec", "put", ..."""
    if reply.error_class in {"CommandNotFound", "CommandDisabled"} or "has been disabled" in reply.description:
        code = "UNSUPPORTED"
        message = (
            f"{said(reply.description)}; allow it in the guest's qemu-ga (--allow-rpcs, --block-rpcs), or update it"
        )
    else:
        code, message = errno_of(reply.description) or "EIO", said(reply.description)
    return AgentRequestError(request=request, code=code, message=message)


def errno_of(description: str) -> str | None:
    """The errno whose text ends the description; qemu-ga reports no more than that.

    The text may be in parentheses within quotes: error was 'Failed to ... (No such file or directory)'.
    """
    words = description.rstrip().rstrip("'\")")
    return next((name for text, name in _ERRNO_NAMES.items() if words.endswith(text)), None)


_ERRNO_NAMES: Final = {os.strerror(number): name for number, name in errno.errorcode.items()}


def _parse(line: bytes) -> Reply | Garbage:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return Garbage(line=line[:_SHOWN])
    if not isinstance(answer, dict) or not {"return", "error"} & answer.keys():
        return Garbage(line=line[:_SHOWN])
    request_id = answer.get("id")
    request_id = request_id if type(request_id) is int else None
    if "return" in answer:
        return Reply(id=request_id, value=answer["return"])
    error = answer["error"] if isinstance(answer["error"], dict) else {}
    return Reply(
        id=request_id,
        error_class=str(error.get("class") or "GenericError"),
        description=str(error.get("desc") or "no reason given"),
    )
