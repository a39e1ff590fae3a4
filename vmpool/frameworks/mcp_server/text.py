"""Bytes of a guest as text for a model."""

from __future__ import annotations

import codecs

import attrs


@attrs.define
class Clipped:
    """What was written, of which at most `limit` bytes are kept: the first half, and the last.

    What an output is about tends to stand at its beginning, and errors at its end.
    """

    limit: int
    left_out: int = attrs.field(default=0, init=False)
    """Bytes that were dropped between the two."""
    _head: bytearray = attrs.field(factory=bytearray, init=False)
    _tail: bytearray = attrs.field(factory=bytearray, init=False)

    def add(self, data: bytes) -> None:
        room = self.limit // 2 - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = len(self._tail) - (self.limit - self.limit // 2)
        if excess > 0:
            del self._tail[:excess]
            self.left_out += excess

    def text(self) -> str:
        """As UTF-8, with U+FFFD for what is not, and a line in place of what was left out."""
        if not self.left_out:
            return (self._head + self._tail).decode(errors="replace")
        head, tail = self._head.decode(errors="replace"), self._tail.decode(errors="replace")
        return f"{head}\n[{self.left_out} bytes left out]\n{tail}"


def whole_characters(data: bytes, *, more: bool) -> tuple[str, int]:
    """The text, and of how many bytes it is: if `more` follows, a character that is not complete yet is left for it.

    Raises UnicodeDecodeError for what is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = decoder.decode(data, final=not more)
    return text, len(data) - len(decoder.getstate()[0])
