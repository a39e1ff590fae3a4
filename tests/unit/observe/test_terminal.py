"""What a terminal gets to see of text that a guest chose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.observe.terminal import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("overwritten\rnew", r"overwritten\rnew"),
        ("\x9b2J", r"\x9b2J"),
        ("\x7f\x08\x00", r"\x7f\x08\x00"),
        ("a\u202eb\u2066c\u200ed", r"a\u202eb\u2066c\u200ed"),
        ("a\u2028b", r"a\u2028b"),
        ("\udc9b", r"\udc9b"),
        ("Grüße, 世界\n\tgut", "Grüße, 世界\n\tgut"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_line_that_must_stay_one_has_its_ends_of_line_written_out_too() -> None:
    assert visible("one\ntwo\tthree", kept="") == r"one\ntwo\tthree"


@given(st.text(st.characters()))
def test_nothing_else_is_left_and_nothing_is_done_twice(text: str) -> None:
    shown = visible(text)
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert visible(shown) == shown
    shown.encode()
