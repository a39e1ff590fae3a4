"""What a guest says, before it becomes part of an error or a record: it chooses its words, and not how many."""

from __future__ import annotations

from typing import Final, TypeGuard

MAX_SAID: Final = 1000
"""Characters of one text. More is told to nobody."""

MAX_STATUS: Final = 255
MAX_SIGNAL: Final = 64


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
