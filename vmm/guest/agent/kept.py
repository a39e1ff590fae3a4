"""The last bytes of an output, for those who come later."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LEAST = 4096


class Kept:
    """A ring that takes up no more memory than it has been written, up to its limit. Positions count from the first
    byte ever written.
    """

    def __init__(self, limit: int, on_size: Callable[[int], None]) -> None:
        """`on_size` is told by how many bytes its memory grows or shrinks."""
        self._limit = limit
        self._on_size = on_size
        self._ring = bytearray()  # the byte at a position is at its remainder by the length
        self.start = 0
        """Position of the first byte that is kept."""
        self.end = 0

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self._ring)

    def append(self, data: bytes) -> None:
        skipped = max(0, len(data) - self._limit)
        if skipped:
            data = data[skipped:]
        self._make_room(min(self._limit, self.end - self.start + len(data)))
        self.end += skipped
        size = len(self._ring)
        at = 0
        while at < len(data):
            place = self.end % size
            count = min(size - place, len(data) - at)
            self._ring[place : place + count] = data[at : at + count]
            self.end += count
            at += count
        self.start = max(self.start, self.end - size)

    def read(self, position: int, most: int) -> bytes:
        """Up to so many bytes from the position on, which is between `start` and `end`."""
        place = position % len(self._ring) if self._ring else 0
        return bytes(self._ring[place : min(place + min(most, self.end - position), len(self._ring))])

    def shrink(self, limit: int) -> None:
        """Keeps no more than so many bytes, now and from now on."""
        self._limit = limit
        data = b""
        while (position := max(self.start, self.end - limit) + len(data)) < self.end:
            data += self.read(position, limit)
        self._on_size(-len(self._ring))
        self._ring = bytearray()
        self.start = self.end = self.end - len(data)
        self.append(data)

    def _make_room(self, needed: int) -> None:
        size = len(self._ring)
        if needed <= size:
            return
        larger = bytearray(min(self._limit, max(_LEAST, 2 * needed)))
        position = self.start
        while position < self.end:
            data = self.read(position, min(size, len(larger) - position % len(larger)))
            place = position % len(larger)
            larger[place : place + len(data)] = data
            position += len(data)
        self._ring = larger
        self._on_size(len(larger) - size)
