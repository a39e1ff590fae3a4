"""Programs that qemu-ga executes. It reports their end only when polled."""

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
"""The longest pause between two polls of a program; the pause doubles from the first to this one. The end of a short
program is noticed within milliseconds, and a long one costs the guest four answers a second."""

SHELL: Final = "/bin/sh"

PROGRAM: Final = "program"
WORKING_DIRECTORY: Final = "working_directory"
"""Parts of a request to start a command, see `vmm.contract.Agent`."""

DEFAULT_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""qemu-ga gives a program either its own environment or that of the request, never both."""


@attrs.frozen(kw_only=True)
class Ended:
    """How a program ended, and all its output."""

    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    cut: bool
    """The output exceeded qemu-ga's own limit of 16 MiB."""

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
    """Starts a program and returns its pid. If cancelled, it kills the program in case it was started.

    Raises AgentRequestError with part "program" if it cannot be started, code "UNSUPPORTED" if qemu-ga may not execute.
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
    """How the program ended, None while it runs. qemu-ga reports an end once, then forgets it. Raises AgentError."""
    value = await channel.execute("guest-exec-status", {"pid": pid}, request=request)
    if not _field(value, "exited", bool):
        return None
    status, signal = value.get("exitcode"), value.get("signal")
    if not is_exit(status, signal):
        raise AgentProtocolError("qemu-ga sent an invalid exit report")
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
    """Runs a short program to its end, and kills it if cancelled. Raises AgentError."""
    pid = await start(channel, argv, request=request, environment=environment, stdin=stdin)
    try:
        return await _wait(channel, pid, request=request)
    except trio.Cancelled:
        channel.undo_soon(partial(kill_and_reap, channel, pid))
        raise


async def send_signal(channel: QgaChannel, pid: int, number: int, *, request: str) -> None:
    """Signals a process through a shell: qemu-ga has no command for it. Does nothing if the process is dead."""
    await run(channel, [SHELL, "-c", 'kill -"$0" "$1"', str(number), str(pid)], request=request)


async def kill_and_reap(channel: QgaChannel, pid: int) -> None:
    """Kills a process and reaps it in qemu-ga."""
    await send_signal(channel, pid, 9, request="exec")
    await reap(channel, pid)


async def reap(channel: QgaChannel, pid: int) -> None:
    """Waits until a process ends, so that qemu-ga forgets it."""
    await _wait(channel, pid, request="exec")


async def _wait(channel: QgaChannel, pid: int, *, request: str) -> Ended:
    pause_s = FIRST_PAUSE_S
    while (end := await ended(channel, pid, request=request)) is None:
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, LAST_PAUSE_S)
    return end


def decode(data: object) -> bytes:
    """Decodes qemu-ga's base64. Raises AgentProtocolError."""
    if not isinstance(data, str):
        raise AgentProtocolError("qemu-ga sent invalid base64")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error too; a plain one for non-ASCII text
        raise AgentProtocolError("qemu-ga sent invalid base64") from error


def _field(value: Any, name: str, kind: type[Any]) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if type(found) is not kind:
        raise AgentProtocolError(f"qemu-ga's answer has no field {name} of type {kind.__name__}")
    return found
