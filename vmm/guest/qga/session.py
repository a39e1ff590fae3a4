"""State that an earlier host left in the guest: running commands, and the environment for later ones.

qemu-ga keeps no environment and cannot list its commands. But commands are its children, and so is the shell that looks
for them; and a file in the guest lives as long as the guest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.qga import execution
from vmm.guest.qga.channel import QgaChannel
from vmm.guest.qga.protocol import errno_of

ENVIRONMENT_PATH: Final = "/run/vmpool-environment"
"""A JSON object, readable by root only."""

TAKE_OVER: Final = """\
for place in /proc/[0-9]*; do
    read -r stat 2>/dev/null <"$place/stat" || continue
    set -- ${stat##*) }
    pid=${place#/proc/}
    if [ "$2" = "$PPID" ] && [ "$pid" != "$$" ]; then kill -9 "$pid" && printf '%s ' "$pid"; fi
done
echo
if [ -e "$0" ]; then cat "$0"; fi
"""
"""Kills the commands, prints their pids on one line, and then the environment."""

_MAX_PIDS: Final = 4096
"""The most pids taken over from an earlier host; a guest that reports more is not honest."""

_PART: Final = "environment"

_KEEP: Final = 'umask 077; cat >"$0"'


async def take_over(channel: QgaChannel) -> dict[str, str]:
    """Kills commands that an earlier host left running, and returns the environment that it set. Raises AgentError.

    If qemu-ga may not execute programs, or finds no shell, there were no commands either.
    """
    try:
        end = await execution.run(channel, [execution.SHELL, "-c", TAKE_OVER, ENVIRONMENT_PATH], request="connect")
    except AgentRequestError as error:
        if error.part == execution.PROGRAM or error.code == "UNSUPPORTED":
            return {}
        raise
    pids, _, environment = end.stdout.partition(b"\n")
    for pid in pids.split()[:_MAX_PIDS]:
        if re.fullmatch(rb"[0-9]{1,10}", pid):
            # Until their ends are fetched, qemu-ga would confuse them with later commands of the same pid.
            channel.start_soon(partial(execution.reap, channel, int(pid)))
    return _decode(environment) if environment else {}


async def keep_environment(channel: QgaChannel, environment: Mapping[str, str]) -> None:
    """Stores the environment in the guest for later connections. Raises AgentError."""
    try:
        end = await execution.run(
            channel,
            [execution.SHELL, "-c", _KEEP, ENVIRONMENT_PATH],
            request="prepare",
            stdin=json.dumps(dict(environment)).encode(),
        )
    except AgentRequestError as error:
        error.part = _PART
        raise
    if end.status != 0:
        code = errno_of(end.said) or "EIO"
        raise AgentRequestError(
            request="prepare", code=code, message=f"the environment cannot be stored: {end.said}", part=_PART
        )


def _decode(text: bytes) -> dict[str, str]:
    try:
        environment: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AgentProtocolError(f"{ENVIRONMENT_PATH} in the guest is not a JSON object of strings") from error
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise AgentProtocolError(f"{ENVIRONMENT_PATH} in the guest is not a JSON object of strings")
    return environment
