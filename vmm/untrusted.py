"""Text and JSON from a guest, or from a QEMU that its guest has taken over: limited in size.

Text is cut before it becomes part of an error or a record, and JSON is counted before it is parsed. Objects, lists and
numbers take the parser's time: a megabyte of empty lists takes a quarter of a second, during which the event loop
stands still. A megabyte of text takes two milliseconds.
"""

from __future__ import annotations

from typing import Final, TypeGuard

MAX_SAID: Final = 1000
"""Characters of one text; the rest is dropped."""

MAX_STATUS: Final = 255
MAX_SIGNAL: Final = 64

_BEGINNINGS: Final = (b"{", b"[", b",")
"""Each piece but the first follows at least one of these."""


def said(text: object, *, most: int = MAX_SAID) -> str:
    """The text, cut, with surrogates escaped as in Python; empty for a value that is not text."""
    if not isinstance(text, str):
        return ""
    cut = text if len(text) <= most else f"{text[:most]}..."
    return cut.encode(errors="backslashreplace").decode()


def is_number(value: object, *, most: int) -> TypeGuard[int]:
    """Whether the value is an integer from 0 to `most`; True and False, which JSON may have, are not."""
    return type(value) is int and 0 <= value <= most


def is_exit(status: object, signal: object) -> bool:
    """Whether a Linux process can have ended so: exactly one of the two is set, the other is None."""
    ended, killed = is_number(status, most=MAX_STATUS), is_number(signal, most=MAX_SIGNAL) and signal != 0
    return (ended and signal is None) or (killed and status is None)


def pieces_in(data: bytes) -> int:
    """The size of JSON in pieces: at least its objects, lists and values, less one. Commas within text count, too."""
    return sum(map(data.count, _BEGINNINGS))
