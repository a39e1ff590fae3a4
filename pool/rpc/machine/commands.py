"""Commands on the wire: checks of what is to be started, and replies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pool.rpc.arguments import check_argv, check_path, check_shell
from pool.rpc.convert import MAX_TIME_LIMIT_MS
from pool.rpc.errors import InvalidRequestError
from pool.rpc.machine.fields import MAX_GROUPS, terminal_size_of, user_of
from vmm.errors import AgentRequestError
from vmm.words.commands import (
    LIMIT_NAMES,
    MAX_GIVEN_STDIN,
    CommandExit,
    CommandSpec,
    Output,
    OutputStream,
    ResourceLimit,
    Terminal,
)
from vmm.words.facts import Obstacle
from vmpool.wire.generated.vmpool import v1 as wire

PAYLOAD_BYTES: Final = 256 * 1024
"""Maximum of data in one message, far below the clients' limits."""

SHELL: Final = ("/bin/sh", "-c")

UNLIMITED: Final = 2**64 - 1
"""Of a resource limit: none."""

MAX_TERM_BYTES: Final = 64

_PARTS: Final[Mapping[str, str]] = {
    "program": "argv[0]",
    "working_directory": "working_directory",
    "user": "user",
    "groups": "groups",
    "limits": "limits",
    "terminal": "terminal",
}
"""The agent's names of a command's parts, as fields of ExecStart."""


def command_spec(start: wire.ExecStart, *, field: str) -> CommandSpec:
    """`field` is the request's name of `start`. Raises InvalidRequestError."""
    argv = _argv_of(start, field=field)
    check_path(f"{field}.working_directory", start.working_directory)
    if start.time_limit_ms > MAX_TIME_LIMIT_MS:
        raise InvalidRequestError(
            field=f"{field}.time_limit_ms",
            reason=f"{start.time_limit_ms} is more than 30 days ({MAX_TIME_LIMIT_MS}); use 0 for no limit",
        )
    if len(start.stdin) > MAX_GIVEN_STDIN:
        raise InvalidRequestError(
            field=f"{field}.stdin",
            reason=f"has {len(start.stdin)} bytes; the maximum is {MAX_GIVEN_STDIN}; send the input in `stdin` "
            "messages, or put a file",
        )
    return CommandSpec(
        argv=argv,
        environment=dict(start.environment),
        working_directory=start.working_directory or None,
        time_limit_s=start.time_limit_ms / 1000 if start.time_limit_ms else None,
        stdin=bytes(start.stdin) or None,
        user=user_of(f"{field}.user", start.user),
        groups=_groups_of(f"{field}.groups", start.groups),
        limits=_limits_of(f"{field}.limits", start.limits),
        terminal=None if start.terminal is None else _terminal_of(f"{field}.terminal", start.terminal),
        leave_children=start.leave_children,
    )


def _argv_of(start: wire.ExecStart, *, field: str) -> tuple[str, ...]:
    if start.shell and start.argv:
        raise InvalidRequestError(field=f"{field}.shell", reason="was set together with argv; set one of the two")
    if start.shell:
        check_shell(field, start.shell, start.environment)
        return *SHELL, start.shell
    check_argv(field, start.argv, start.environment)
    return tuple(start.argv)


def _groups_of(field: str, groups: Sequence[str]) -> tuple[str, ...]:
    if len(groups) > MAX_GROUPS:
        raise InvalidRequestError(field=field, reason=f"has {len(groups)} entries; at most {MAX_GROUPS} are allowed")
    for index, group in enumerate(groups):
        if not user_of(f"{field}[{index}]", group):
            raise InvalidRequestError(field=f"{field}[{index}]", reason="is empty; name a group, or give its number")
    return tuple(groups)


def _limits_of(field: str, limits: Sequence[wire.ResourceLimit]) -> tuple[ResourceLimit, ...]:
    found: dict[str, ResourceLimit] = {}
    for index, limit in enumerate(limits):
        if limit.name not in LIMIT_NAMES:
            raise InvalidRequestError(
                field=f"{field}[{index}].name",
                reason=f"{limit.name[:32]!r} is not the name of a limit; use one of {', '.join(sorted(LIMIT_NAMES))}",
            )
        if limit.name in found:
            raise InvalidRequestError(field=f"{field}[{index}].name", reason=f"{limit.name!r} was set before")
        if limit.soft > limit.hard:
            raise InvalidRequestError(
                field=f"{field}[{index}].soft", reason=f"{limit.soft} is more than hard, which is {limit.hard}"
            )
        found[limit.name] = ResourceLimit(name=limit.name, soft=_limit_of(limit.soft), hard=_limit_of(limit.hard))
    return tuple(found.values())


def _limit_of(value: int) -> int | None:
    return None if value == UNLIMITED else value


def _terminal_of(field: str, terminal: wire.Terminal) -> Terminal:
    usual = Terminal()
    if len(terminal.term) > MAX_TERM_BYTES or not (terminal.term.isascii() and terminal.term.isprintable()):
        raise InvalidRequestError(
            field=f"{field}.term", reason=f"must be printable ASCII, at most {MAX_TERM_BYTES} characters"
        )
    return Terminal(size=terminal_size_of(field, terminal), term=terminal.term or usual.term)


@contextlib.contextmanager
def starting(spec: CommandSpec, *, field: str) -> Iterator[None]:
    """Around the start of a command: if a field of `field` made the guest refuse it, raises InvalidRequestError."""
    try:
        yield
    except AgentRequestError as refusal:
        error = _refused_field(refusal, field=field, shell=tuple(spec.argv[:2]) == SHELL)
        if error is None:
            raise
        raise error from refusal


def _refused_field(refusal: AgentRequestError, *, field: str, shell: bool) -> InvalidRequestError | None:
    if refusal.obstacle is not Obstacle.REQUEST:
        return None
    if refusal.code == "E2BIG":
        return InvalidRequestError(
            field=f"{field}.argv and {field}.environment",
            reason="are together too large for the guest to start a program; use a file",
            refusal=refusal,
        )
    part = "shell" if shell and refusal.part == "program" else _PARTS.get(refusal.part)
    if part is None:
        return None
    reason = f"cannot be used: {refusal.code}: {refusal.message}"
    return InvalidRequestError(field=f"{field}.{part}", reason=reason, refusal=refusal)


# -- replies -----------------------------------------------------------------------------------------------------------


def exec_replies(event: Output | CommandExit) -> Iterable[wire.ExecReply]:
    match event:
        case Output(stream=OutputStream.STDOUT, data=data):
            return (wire.ExecReply(stdout=piece) for _, piece in pieces(data))
        case Output(data=data):
            return (wire.ExecReply(stderr=piece) for _, piece in pieces(data))
        case CommandExit():
            return (wire.ExecReply(exit=exit_message(event)),)


def exit_message(ended: CommandExit) -> wire.ExecExit:
    return wire.ExecExit(
        status=ended.status, signal=ended.signal, timed_out=ended.timed_out, out_of_memory=ended.out_of_memory
    )


def pieces(data: bytes) -> Iterable[tuple[int, bytes]]:
    """What goes into one message each, with its place in the data."""
    return ((start, data[start : start + PAYLOAD_BYTES]) for start in range(0, len(data), PAYLOAD_BYTES))
