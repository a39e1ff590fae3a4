"""A traceback in the log says where, and is small, whatever the error is."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pool.observe.tracebacks import MAX_ERRORS, MAX_FRAMES, MAX_TEXT, render_traceback, write_traceback

MOST_BYTES = 200_000


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail(error: Exception, *, cause: BaseException | None = None) -> Exception:
    with pytest.raises(type(error)) as raised:
        raise error from cause
    return raised.value


def recurse(deep: int) -> None:
    if deep:
        recurse(deep - 1)
    raise ValueError("at the bottom")


def from_the_depth(deep: int) -> BaseException:
    with pytest.raises(ValueError, match="at the bottom") as raised:
        recurse(deep)
    return raised.value


def chained(count: int) -> Exception:
    error: Exception = ValueError("the first")
    for number in range(count):
        error = fail(ValueError(f"the next: {number}"), cause=error)
    return error


def nested(count: int) -> BaseException:
    error: Exception = ValueError("the innermost")
    for _ in range(count):
        error = ExceptionGroup("a nursery", [error])
    return error


def with_notes(count: int) -> BaseException:
    error = ValueError("noted")
    for number in range(count):
        error.add_note(f"note {number}" * 1000)
    return error


def records(error: BaseException) -> list[Any]:
    found: list[Any] = json.loads(json.dumps(render_traceback((type(error), error, error.__traceback__))))
    return found


def text(error: BaseException) -> str:
    out = io.StringIO()
    write_traceback(out, (type(error), error, error.__traceback__))
    return out.getvalue()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 10_000_000),
        ExceptionGroup("many", [ValueError("x" * 5000) for _ in range(5000)]),
        ExceptionGroup("many", [chained(50) for _ in range(50)]),
        nested(300),
        chained(500),
        from_the_depth(900),
        with_notes(500),
        UnspeakableError(),
    ],
    ids=["long text", "a group", "a group of chains", "nested groups", "a chain", "deep", "notes", "no text"],
)
def test_whatever_the_error_is_its_traceback_is_small(error: BaseException) -> None:
    assert len(json.dumps(records(error))) < MOST_BYTES
    assert 0 < len(text(error)) < MOST_BYTES


def test_what_is_left_out_is_told() -> None:
    (record,) = records(ExceptionGroup("many", [ValueError(number) for number in range(100)]))
    assert (len(record["exceptions"]), record["exceptions_left_out"]) == (MAX_ERRORS - 1, 100 - MAX_ERRORS + 1)
    (record,) = records(ValueError("x" * (MAX_TEXT + 7)))
    assert record["exc_value"].endswith("x... (7 characters more)")


def test_the_innermost_frames_are_kept() -> None:
    (record,) = records(from_the_depth(200))
    assert len(record["frames"]) == MAX_FRAMES
    assert record["frames"][-1]["name"] == "recurse"


def test_causes_are_told_as_python_does() -> None:
    error = fail(ValueError("second"), cause=fail(KeyError("first")))
    said = re.sub(r'File ".*", line \d+', "File", text(error))
    assert said.splitlines() == [
        "",
        "Traceback (most recent call last):",
        "  File, in fail",
        "KeyError: 'first'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "  File, in fail",
        "ValueError: second",
    ]
    assert [(record["exc_type"], record["is_cause"]) for record in records(error)] == [
        ("ValueError", False),
        ("KeyError", True),
    ]


def test_errors_without_a_text_do_not_end_the_log() -> None:
    (record,) = records(UnspeakableError())
    assert record["exc_value"] == "<its text cannot be made: RuntimeError>"
