"""How to get away from a guest's terminal, which gets every key: as in ssh, ~ and another key at the beginning of a
line. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

import attrs


class Escape(enum.Enum):
    LEAVE = b"."
    SUSPEND = b"\x1a"
    """Ctrl-Z."""


HELP: Final = "~. behind Enter leaves the terminal, ~^Z suspends vmpool, ~~ is a tilde."

_TILDE: Final = b"~"
_NEW_LINE: Final = b"\r\n"


@attrs.define
class EscapeReader:
    """Takes keys as they are typed; a tilde at the beginning of a line is held back until the next key."""

    _at_start: bool = True
    _held: bool = False

    def feed(self, data: bytes) -> Iterator[bytes | Escape]:
        """What is for the guest, and what is for us, in order."""
        theirs = bytearray()
        for number in data:
            key = bytes([number])
            if self._held:
                self._held = False
                if key in (Escape.LEAVE.value, Escape.SUSPEND.value):
                    if theirs:
                        yield bytes(theirs)
                        theirs.clear()
                    self._at_start = True
                    yield Escape(key)
                    continue
                if key != _TILDE:
                    theirs += _TILDE
            elif self._at_start and key == _TILDE:
                self._held = True
                continue
            theirs += key
            self._at_start = key in _NEW_LINE
        if theirs:
            yield bytes(theirs)
