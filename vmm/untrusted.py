"""Text and JSON of a guest, or of a QEMU that its guest has taken over: they choose their words, and not how many.

Text is cut before it becomes part of an error or a record, and JSON is counted before it is read. What takes time in
it is objects, lists and numbers: a megabyte of empty lists takes a quarter of a second, and all that the event loop
serves waits for it. A megabyte of text takes two milliseconds.
"""

from __future__ import annotations

from typing import Final, TypeGuard

MAX_SAID: Final = 1000
"""Characters of one text. More is told to nobody."""

MAX_STATUS: Final = 255
MAX_SIGNAL: Final = 64

_BEGINNINGS: Final = (b"{", b"[", b",")
"""What there is at least one of for each piece but the first."""


def said(text: object, *, most: int = MAX_SAID) -> str:
    """The text, cut, and with what is no Unicode written out as in Python; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    cut = text if len(text) <= most else f"{text[:most]}..."
    return cut.encode(errors="backslashreplace").decode()


def is_number(value: object, *, most: int) -> TypeGuard[int]:
    """Whether it is one from 0 on. JSON and our own values have True and False, which Python takes for numbers."""
    return type(value) is int and 0 <= value <= most


def is_exit(status: object, signal: object) -> bool:
    """Whether a Linux process can have ended with exactly one of these; the other is None."""
    ended, killed = is_number(status, most=MAX_STATUS), is_number(signal, most=MAX_SIGNAL) and signal != 0
    return (ended and signal is None) or (killed and status is None)


def pieces_in(data: bytes) -> int:
    """How much there is to read in bytes of JSON: at least its objects, lists and values, but for one. Of text
    it counts commas, too.
    """
    return sum(map(data.count, _BEGINNINGS))
