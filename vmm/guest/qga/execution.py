"""Programs that qemu-ga executes. It tells of their end only when asked, so it is asked again and again."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.qga.channel import QgaChannel
from vmm.untrusted import MAX_SAID, is_exit

FIRST_PAUSE_S: Final = 0.002
LAST_PAUSE_S: Final = 0.25
"""Between two questions whether a program has ended; doubled from the first to the last. What runs for milliseconds is
seen to end in milliseconds, what runs for hours costs the guest four answers a second."""

SHELL: Final = "/bin/sh"

PROGRAM: Final = "program"
WORKING_DIRECTORY: Final = "working_directory"
"""Parts of a request that starts a command, see `vmm.contract.Agent`."""

DEFAULT_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""qemu-ga gives a program its own environment or the one in the request, never both."""


@attrs.frozen(kw_only=True)
class Ended:
    """How a program ended and all that it wrote."""

    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    cut: bool
    """qemu-ga kept no more than its own limit of 16 MiB."""

    @property
    def said(self) -> str:
        """The last line on stderr."""
        lines = self.stderr[-MAX_SAID:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self.status}, signal {self.signal}"


async def start(
    channel: QgaChannel,
    argv: Sequence[str],
    *,
    request: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> int:
    """Starts a program and returns its pid. Cancelled, it kills it if it was started.

    Raises AgentRequestError with part "program" if it cannot be started, code "UNSUPPORTED" if qemu-ga may start none.
    """
    arguments: dict[str, Any] = {
        "path": argv[0],
        "arg": list(argv[1:]),
        "env": [f"{name}={value}" for name, value in (DEFAULT_ENVIRONMENT | dict(environment or {})).items()],
        "capture-output": True,
    }
    if stdin:
        arguments["input-data"] = base64.b64encode(stdin).decode()

    async def undo(value: Any) -> None:
        await kill_and_reap(channel, pid_of(value))

    try:
        return pid_of(await channel.execute("guest-exec", arguments, request=request, undo=undo))
    except AgentRequestError as error:
        if error.code not in {"UNSUPPORTED", "BAD_REQUEST"}:
            error.part = PROGRAM
        raise


def pid_of(value: Any) -> int:
    return int(_field(value, "pid", int))


async def ended(channel: QgaChannel, pid: int, *, request: str) -> Ended | None:
    """How the program ended, None while it runs. qemu-ga tells of an end once, and forgets it. Raises AgentError."""
    value = await channel.execute("guest-exec-status", {"pid": pid}, request=request)
    if not _field(value, "exited", bool):
        return None
    status, signal = value.get("exitcode"), value.get("signal")
    if not is_exit(status, signal):
        raise AgentProtocolError("qemu-ga reported an exit that is none")
    return Ended(
        status=status,
        signal=signal,
        stdout=decode(value.get("out-data", "")),
        stderr=decode(value.get("err-data", "")),
        cut=value.get("out-truncated") is True or value.get("err-truncated") is True,
    )


async def run(
    channel: QgaChannel,
    argv: Sequence[str],
    *,
    request: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> Ended:
    """Runs a short program to its end. Cancelled, it kills it. Raises AgentError."""
    pid = await start(channel, argv, request=request, environment=environment, stdin=stdin)
    try:
        return await _wait(channel, pid, request=request)
    except trio.Cancelled:
        channel.undo_soon(partial(kill_and_reap, channel, pid))
        raise


async def send_signal(channel: QgaChannel, pid: int, number: int, *, request: str) -> None:
    """Signals a process, by a shell: qemu-ga has no command for it. Nothing happens if it is dead."""
    await run(channel, [SHELL, "-c", 'kill -"$0" "$1"', str(number), str(pid)], request=request)


async def kill_and_reap(channel: QgaChannel, pid: int) -> None:
    """Kills a process and has qemu-ga forget it."""
    await send_signal(channel, pid, 9, request="exec")
    await reap(channel, pid)


async def reap(channel: QgaChannel, pid: int) -> None:
    """Waits for the end of a process, and has qemu-ga forget it."""
    await _wait(channel, pid, request="exec")


async def _wait(channel: QgaChannel, pid: int, *, request: str) -> Ended:
    pause_s = FIRST_PAUSE_S
    while (end := await ended(channel, pid, request=request)) is None:
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, LAST_PAUSE_S)
    return end


def decode(data: object) -> bytes:
    """Base64 as qemu-ga says it. Raises AgentProtocolError."""
    if not isinstance(data, str):
        raise AgentProtocolError("qemu-ga said data that is no base64")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error is one; of what is not ASCII it is none
        raise AgentProtocolError("qemu-ga said data that is no base64") from error


def _field(value: Any, name: str, kind: type[Any]) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if type(found) is not kind:
        raise AgentProtocolError(f"qemu-ga's answer has no {name} that is a {kind.__name__}")
    return found
