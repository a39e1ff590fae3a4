"""Output for a model: bounded, and in whole characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vmpool.frameworks.mcp_server.text import Clipped, whole_characters


def clipped(limit: int, *pieces: bytes) -> Clipped:
    kept = Clipped(limit)
    for piece in pieces:
        kept.add(piece)
    return kept


def test_what_fits_is_kept_as_it_is() -> None:
    kept = clipped(6, b"abc", b"def")
    assert (kept.text(), kept.left_out) == ("abcdef", 0)


def test_of_more_the_beginning_and_the_end_are_kept_and_the_text_says_so() -> None:
    kept = clipped(6, b"abcdefgh", b"ij")
    assert (kept.text(), kept.left_out) == ("abc\n[4 bytes left out]\nhij", 4)


def test_what_is_no_utf8_is_replaced() -> None:
    assert clipped(6, b"a\xff").text() == "a\ufffd"


@given(limit=st.integers(0, 20), pieces=st.lists(st.binary(max_size=12)))
@examples(200)
def test_it_does_not_matter_how_the_output_came(limit: int, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    in_pieces, at_once = clipped(limit, *pieces), clipped(limit, whole)
    assert in_pieces.text() == at_once.text()
    assert in_pieces.left_out == at_once.left_out == max(len(whole) - limit, 0)


@given(text=st.text(), length=st.integers(1, 9))
@examples(200)
def test_a_file_read_bit_by_bit_is_the_file(text: str, length: int) -> None:
    data, found, offset = text.encode(), "", 0
    while offset < len(data):
        part = data[offset : offset + max(length, 4)]
        characters, consumed = whole_characters(part, more=offset + len(part) < len(data))
        assert consumed > 0
        found, offset = found + characters, offset + consumed
    assert found == text


@pytest.mark.parametrize(("data", "more"), [(b"a\xff", True), (b"a\xff", False), (b"a\xc3", False)])
def test_what_is_no_text_is_not_taken_for_one(data: bytes, more: bool) -> None:
    with pytest.raises(UnicodeDecodeError):
        whole_characters(data, more=more)
