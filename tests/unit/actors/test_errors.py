"""Errors as text: one line that says what happened, and the evidence in order."""

from __future__ import annotations

from actors.errors import describe, evidence


def with_note(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


def test_a_group_is_described_by_its_leaves_in_one_line() -> None:
    group = ExceptionGroup("outer", [ValueError("a\n  b"), ExceptionGroup("inner", [KeyError(), OSError("c")])])
    assert describe(group) == "a b; KeyError; c"


def test_blanks_within_a_line_are_what_was_said() -> None:
    """Kata's own texts have some that its users' scripts look for."""
    assert describe(OSError("already exist.  Please stop\r\n\n\t it\n")) == "already exist.  Please stop it"
    assert describe(ValueError(" \n ")) == "ValueError"


def test_evidence_is_of_the_error_then_of_its_causes_each_once() -> None:
    cause = with_note(ValueError("cause"), "console")
    error = with_note(OSError("error"), "argv")
    error.add_note("console")
    error.__cause__ = cause
    cause.__cause__ = with_note(KeyError("root"), "root cause")
    assert evidence(error) == "argv\nconsole\nroot cause"


def test_evidence_of_a_group_is_that_of_its_leaves() -> None:
    assert evidence(ExceptionGroup("g", [with_note(ValueError(), "one"), with_note(OSError(), "two")])) == "one\ntwo"


def test_an_error_without_notes_has_no_evidence() -> None:
    assert evidence(ValueError("x")) == ""
