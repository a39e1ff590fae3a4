"""Tracebacks for the log, of bounded size and without the values of variables.

An error may quote megabytes, be the last of a long chain, or be a group of thousands, and the service does nothing else
while it is rendered.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

import attrs

from pool.observe.terminal import visible

MAX_ERRORS: Final = 16
"""Of one traceback: causes, and members of groups."""

MAX_FRAMES: Final = 50
"""Of one error: the innermost ones."""

MAX_TEXT: Final = 2000
"""Characters of an error's message, and of each of its notes."""

MAX_NOTES: Final = 8

ExcInfo = tuple[Any, ...]
Record = Mapping[str, Any]

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


def render_traceback(exc_info: ExcInfo) -> Sequence[Record]:
    """The error, then its causes, as records for JSON, with the names that structlog uses."""
    return _Teller().chain(exc_info[1])


def write_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    """As Python writes it, below the line of the log, for a terminal."""
    out.write(visible("\n".join(["", *_lines(render_traceback(exc_info))])))


@attrs.define
class _Teller:
    left: int = MAX_ERRORS

    def chain(self, error: BaseException | None) -> Sequence[Record]:
        told, is_cause = [], False
        while error is not None and self.left:
            self.left -= 1
            told.append(self._one(error, is_cause=is_cause))
            is_cause = error.__cause__ is not None
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return told

    def _one(self, error: BaseException, *, is_cause: bool) -> Record:
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        chains = [chain for member in members[: self.left] if (chain := self.chain(member))]
        frames = traceback.StackSummary.extract(
            traceback.walk_tb(error.__traceback__), limit=-MAX_FRAMES, lookup_lines=False
        )
        record: dict[str, Any] = {
            "exc_type": type(error).__name__,
            "exc_value": _cut(_text_of(error)),
            "exc_notes": [_cut(str(note)) for note in getattr(error, "__notes__", ())[:MAX_NOTES]],
            "is_cause": is_cause,
            "frames": [{"filename": frame.filename, "lineno": frame.lineno, "name": frame.name} for frame in frames],
            "is_group": isinstance(error, BaseExceptionGroup),
            "exceptions": chains,
        }
        return record | ({"exceptions_left_out": left} if (left := len(members) - len(chains)) else {})


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as bug:  # noqa: BLE001 - the log must go on
        return f"<its text cannot be made: {type(bug).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text) - MAX_TEXT} characters more)"


def _lines(chain: Sequence[Record]) -> Iterator[str]:
    """The oldest error first."""
    for number in reversed(range(len(chain))):
        record = chain[number]
        if record["frames"]:
            yield "Traceback (most recent call last):"
        for frame in record["frames"]:
            yield f'  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}'
        text = record["exc_value"]
        yield f"{record['exc_type']}: {text}" if text else record["exc_type"]
        yield from record["exc_notes"]
        for member, of_member in enumerate(record["exceptions"], start=1):
            yield f"  ---- {member} ----"
            yield from (f"  {line}" for line in _lines(of_member))
        if left_out := record.get("exceptions_left_out"):
            yield f"  ---- and {left_out} more ----"
        if number:
            yield ""
            yield _CAUSE if record["is_cause"] else _CONTEXT
            yield ""
