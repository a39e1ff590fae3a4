"""What an earlier host left in the guest: commands that run, and the environment of those to come.

qemu-ga keeps no environment, and no list of its commands that it would tell. But they are its children, as is the
shell that looks for them; and a file in the guest lives as long as the guest does.
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
"""An object in JSON, for root to read."""

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
"""Kills the commands and prints their pids, on one line, and after it the environment."""

_MAX_PIDS: Final = 4096
"""Of commands that an earlier host left; a guest that names more has something else in mind."""

_PART: Final = "environment"

_KEEP: Final = 'umask 077; cat >"$0"'


async def take_over(channel: QgaChannel) -> dict[str, str]:
    """Ends what an earlier host's commands left running, and returns the environment that it set. Raises AgentError.

    A qemu-ga that may not execute programs, or has no shell for it, had no commands either.
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
            # Until it was told of their ends, qemu-ga would take them for later commands of the same pid.
            channel.start_soon(partial(execution.reap, channel, int(pid)))
    return _decode(environment) if environment else {}


async def keep_environment(channel: QgaChannel, environment: Mapping[str, str]) -> None:
    """Leaves it in the guest for the next host. Raises AgentError."""
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
            request="prepare", code=code, message=f"the environment cannot be kept: {end.said}", part=_PART
        )


def _decode(text: bytes) -> dict[str, str]:
    try:
        environment: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AgentProtocolError(f"{ENVIRONMENT_PATH} of the guest is not what was written there") from error
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise AgentProtocolError(f"{ENVIRONMENT_PATH} of the guest is not what was written there")
    return environment
