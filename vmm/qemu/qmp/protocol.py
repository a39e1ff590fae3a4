"""One side of a QMP connection without I/O: bytes in, messages out; commands in, bytes out."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from vmm.errors import QmpConnectionError
from vmm.qemu.qmp.messages import Event, Failure, Greeting, Message, Success, encode_command, parse_line
from vmm.untrusted import pieces_in

MAX_LINE_BYTES = 1024 * 1024
"""The longest line that is read. `query-qmp-schema` answers with about 200 KiB, no command in use with more.

QEMU may be under its guest's control, and a line is parsed in one go: at 10 MiB, the limit of `qemu.qmp`, a line could
take seconds of the event loop and 320 MiB, again and again.
"""

MAX_PIECES = 2**15
"""Pieces of one line, see `vmm.untrusted.pieces_in`. QEMU 7.2 answers `query-qmp-schema` with some 16,000, later
versions with more; answers about a machine with hundreds of CPUs have a few thousand.
"""

AT_ONCE: Final = 2000
PER_S: Final = 20
"""Lines and KiB together. The most that an honest QEMU is known to send is an event for each CPU and memory block added
at a hand-out; other events are seconds or hours apart."""

_ANSWER: Final = 256
"""Allowance for one command. The longest answer, about hundreds of CPUs, takes a quarter of it."""


class Phase(enum.Enum):
    GREETING = "greeting"
    COMMANDS = "commands"
    BROKEN = "broken"


class QmpProtocol:
    """The client's side of one connection: frames lines, numbers commands and checks each reply against them.

    The first error breaks the protocol for good: every later call raises QmpConnectionError.

    QEMU may still execute a command of an earlier client that was killed or hung up, and then sends us the answer.
    Commands are executed in order, so such replies come before our first one, and are ignored. Our numbers begin after
    `last_id`, and must differ from that client's.
    """

    def __init__(self, *, last_id: int = 0, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._phase = Phase.GREETING
        self._last_id = last_id
        self._answered = False
        self._outstanding: set[int] = set()

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def outstanding(self) -> frozenset[int]:
        """The commands without a reply yet."""
        return frozenset(self._outstanding)

    def command(self, name: str, arguments: Mapping[str, Any]) -> tuple[int, bytes]:
        """Numbers a command; returns its id and the line to send, which must then be sent in this order."""
        if self._phase is not Phase.COMMANDS:
            raise QmpConnectionError(f"QMP {name}: the connection is in phase {self._phase.value!r}; connect again")
        command_id = self._last_id + 1
        line = encode_command(name, arguments, command_id=command_id)
        self._last_id = command_id
        self._outstanding.add(command_id)
        return command_id, line

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """Takes received bytes; returns the messages that they complete, none or many.

        Raises QmpConnectionError for a line over the limit, an invalid message, or a reply that matches no command.
        """
        if self._phase is Phase.BROKEN:
            raise QmpConnectionError("this QMP connection is broken; connect again")
        try:
            self._buffer += data
            messages = [self._parse(line) for line in self._complete_lines()]
            return [message for message in messages if self._accept(message)]
        except QmpConnectionError:
            self._phase = Phase.BROKEN
            self._buffer.clear()
            raise

    def _complete_lines(self) -> list[bytes]:
        lines = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            self._check_length(end - start)
            if line := bytes(self._buffer[start:end]).strip():
                lines.append(line)
            start = end + 1
        del self._buffer[:start]
        self._check_length(len(self._buffer))
        self._searched = len(self._buffer)
        return lines

    def _parse(self, line: bytes) -> Message:
        if pieces_in(line) > MAX_PIECES:
            raise QmpConnectionError(f"QMP line of over {MAX_PIECES} pieces; the peer does not speak QMP")
        return parse_line(line)

    def _check_length(self, length: int) -> None:
        if length > self._max_line_bytes:
            raise QmpConnectionError(f"QMP line of over {self._max_line_bytes} bytes; the peer does not speak QMP")

    def _accept(self, message: Message) -> bool:
        """Whether the message is for us. Raises QmpConnectionError if it is not allowed in this phase."""
        match message, self._phase:
            case Greeting(), Phase.GREETING:
                self._phase = Phase.COMMANDS
            case Event(), Phase.COMMANDS:
                pass
            case Success(id=int(command_id)) | Failure(id=int(command_id)), Phase.COMMANDS:
                if command_id not in self._outstanding:
                    if not self._answered:
                        return False
                    raise QmpConnectionError(f"QMP reply to command {command_id}, which is not pending")
                self._outstanding.remove(command_id)
                self._answered = True
            case _:
                raise QmpConnectionError(f"QMP peer out of turn in phase {self._phase.value!r}: {message}")
        return True


class Allowance:
    """How much unrequested output a QEMU may send on its monitor before it counts as misbehaving. No clock of its own.

    A guest can cause some events as often as it likes, such as ACPI_DEVICE_OST by writing to an I/O port, and a QEMU
    under its guest's control can send anything.
    """

    def __init__(self) -> None:
        self._left = float(AT_ONCE)
        self._seen = 0.0

    def asked(self) -> None:
        """A command was sent, so an answer will come."""
        self._left = min(AT_ONCE, self._left + _ANSWER)

    def spend(self, lines: int, *, size: int, now: float) -> bool:
        """Accounts for `lines` that ended in `size` bytes at time `now`, in seconds of a monotonic clock. Returns
        whether they were within the allowance.
        """
        self._left = min(AT_ONCE, self._left + (now - self._seen) * PER_S)
        self._seen = now
        self._left -= lines + size / 1024
        return self._left >= 0
