"""qemu-ga's protocol without I/O: JSON objects, one a line, one answer to each request, in order.

qemu-ga neither greets nor numbers what it says. Its answer to `guest-sync-delimited` has a byte 0xFF in front, which no
JSON can hold: what comes before that was said to somebody else. The same byte, sent, has qemu-ga forget a request
that it has seen the beginning of only.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from vmm.errors import AgentRequestError
from vmm.guest.said import said

DELIMITER: Final = b"\xff"

MAX_LINE: Final = 8 * 2**20
"""Of what qemu-ga says; a command's output is in it, in base64. A guest is not trusted with the host's memory."""

MAX_PIECES: Final = 2**17
"""Of a line: objects, lists, and what is in them. What takes the host's time to read is not output in base64, which is
one. The longest list that is asked for is that of a guest's blocks of memory: 32768 pieces for a TiB."""


@attrs.frozen(kw_only=True)
class Reply:
    """An answer. Exactly one of `error_class` and a value is meaningful."""

    id: int | None
    value: Any = None
    error_class: str = ""
    description: str = ""


@attrs.frozen
class Delimiter:
    """What follows is the answer to a sync."""


@attrs.frozen
class Overlong:
    """A line was longer than MAX_LINE, and is lost. With one request at a time it was the answer to that."""


@attrs.frozen(kw_only=True)
class Garbage:
    """A line that is no answer: the rest of what was said to another host, or a guest that plays tricks."""

    line: bytes


Message = Reply | Delimiter | Overlong | Garbage


def encode(name: str, arguments: Mapping[str, Any], *, request_id: int) -> bytes:
    """One request as a line. Raises TypeError or ValueError for what JSON cannot say."""
    request: dict[str, Any] = {"execute": name, "id": request_id}
    if arguments:
        request["arguments"] = dict(arguments)
    return json.dumps(request).encode() + b"\n"


def encode_sync(number: int, *, request_id: int) -> bytes:
    """What starts anew on a channel of unknown state; see `Reply.value` for the number, and `Delimiter`."""
    return DELIMITER + encode("guest-sync-delimited", {"id": number}, request_id=request_id)


_SHOWN: Final = 200
"""Bytes of garbage that are kept as evidence."""

_PIECES: Final = (b"{", b"[", b",")
"""What there is at least one of for each piece but the first."""

_END: Final = re.compile(rb"[\n\xff]")


class Decoder:
    """Bytes in, messages out. Holds at most MAX_LINE bytes."""

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._line = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[Message]:
        messages: list[Message] = []
        start = 0
        for end in _END.finditer(data):
            self._add(data[start : end.start()])
            start = end.end()
            if end[0] == DELIMITER:
                self._line.clear()
                self._overlong = False
                messages.append(Delimiter())
            else:
                messages += self._end_line()
        self._add(data[start:])
        return messages

    def _add(self, piece: bytes) -> None:
        if self._overlong or len(self._line) + len(piece) > self._max_line:
            self._overlong = True
            self._line.clear()
        else:
            self._line += piece

    def _end_line(self) -> list[Message]:
        line, self._line = bytes(self._line), bytearray()
        if self._overlong:
            self._overlong = False
            return [Overlong()]
        return [_parse(line)] if line.strip() else []


def refusal(request: str, reply: Reply) -> AgentRequestError:
    """qemu-ga's error as ours. `request` is the name in our contract: "exec", "put", ..."""
    if reply.error_class in {"CommandNotFound", "CommandDisabled"} or "has been disabled" in reply.description:
        code = "UNSUPPORTED"
        message = (
            f"{said(reply.description)}; allow it in the guest's qemu-ga (--allow-rpcs, --block-rpcs), or update that"
        )
    else:
        code, message = errno_of(reply.description) or "EIO", said(reply.description)
    return AgentRequestError(request=request, code=code, message=message)


def errno_of(description: str) -> str | None:
    """The name of the errno whose words the description ends in, which is all that qemu-ga tells of it.

    Within brackets, and those within quotes: error was 'Failed to ... (No such file or directory)'.
    """
    words = description.rstrip().rstrip("'\")")
    return next((name for text, name in _ERRNO_NAMES.items() if words.endswith(text)), None)


_ERRNO_NAMES: Final = {os.strerror(number): name for number, name in errno.errorcode.items()}


def _parse(line: bytes) -> Reply | Garbage:
    if sum(map(line.count, _PIECES)) > MAX_PIECES:
        return Garbage(line=line[:_SHOWN])
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
