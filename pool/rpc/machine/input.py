"""The input of a process, as its caller sends it: stdin, signals, new sizes of its terminal."""

from __future__ import annotations

from typing import Final, Protocol

from pool.rpc.calls import ServerStream, receive
from pool.rpc.errors import InvalidRequestError
from pool.rpc.machine.fields import kind_of, signal_of, terminal_size_of
from vmm.words.commands import TerminalSize

INPUT_KINDS: Final = ("stdin", "close_stdin", "signal", "resize")
"""Of an ExecRequest or AttachRequest, beside its start."""


class TakesInput(Protocol):
    """What Command and AttachedProcess of `vmm.contract` have in common."""

    async def send_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None: ...

    async def resize(self, size: TerminalSize) -> None: ...


async def pass_on_input(stream: ServerStream, process: TakesInput, *, given: bool = False) -> None:
    """Passes the requests on, until they end. Waits while the process does not read.

    `given`: all of its stdin came with its start. Raises InvalidRequestError, AgentError.
    """
    closed = False
    while (request := await receive(stream)) is not None:
        match kind_of(request, "start", *INPUT_KINDS):
            case "stdin":
                if given:
                    raise InvalidRequestError(
                        field="stdin", reason="was already sent in start.stdin; use one of the two"
                    )
                if closed:
                    raise InvalidRequestError(field="stdin", reason="came after close_stdin; send it before")
                await process.send_stdin(request.stdin)
            case "close_stdin":
                closed = True
                await process.close_stdin()
            case "signal":
                await process.send_signal(signal_of(request.signal))
            case "resize":
                await process.resize(terminal_size_of("resize", request.resize))
            case _:
                raise InvalidRequestError(field="start", reason="was already sent; use one call for each command")
