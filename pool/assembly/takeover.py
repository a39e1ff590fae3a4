"""Takeover: the running service detaches its VMs, and this one adopts them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

import structlog
import trio

from pool.host.endpoint import EndpointError, lock_path
from pool.host.runtime import vms_lock_path
from vmm.lock import holder
from vmpool.client import CallError, ServiceUnavailableError, open_client

_log = structlog.get_logger("vmpool.takeover")

HAND_OVER_LIMIT_S: Final = 30.0
"""A service detaches its VMs in milliseconds; ending the VMs in production takes seconds at most."""


async def take_over(socket_path: Path, *, runtime: Path) -> None:
    """Requests the hand-over of the service at `socket_path`, and returns when it has ended; at once without a service.

    Raises EndpointError if the service refuses, or does not end in time; or, before the request, if its VMs are not in
    `runtime`, where they would be found.
    """
    _check_runtime(socket_path, runtime=runtime)
    try:
        async with open_client(socket_path) as client:
            # It begins to end as it answers: the connection may break before the answer is here.
            with contextlib.suppress(ServiceUnavailableError):
                await client.hand_over()
    except ServiceUnavailableError:
        return  # if there is one all the same, its lock will tell
    except CallError as error:
        raise EndpointError(f"the service at {socket_path} refused to hand over: {error}") from error
    _log.info("waiting for the service that runs to hand over", socket=str(socket_path))
    lock = lock_path(socket_path)
    with trio.move_on_after(HAND_OVER_LIMIT_S):
        await trio.to_thread.run_sync(_wait_for, lock, abandon_on_cancel=True)
        return
    raise EndpointError(
        f"the service at {socket_path} did not end within {HAND_OVER_LIMIT_S:g} s of the hand-over; see its log, "
        "then kill it; its VMs live on"
    )


def _check_runtime(socket_path: Path, *, runtime: Path) -> None:
    """A service holds both locks, of its socket and of its VMs."""
    pid = holder(lock_path(socket_path))
    if pid is not None and holder(vms_lock_path(runtime)) != pid:
        raise EndpointError(
            f"the service at {socket_path} (pid {pid or 'unknown'}) does not have its VMs in {runtime}: they and their "
            "leases would be left behind; set service.runtime_directory as that service has it, or stop it first"
        )


def _wait_for(lock: Path) -> None:
    """Blocks until the lock is free."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return  # whoever held it has removed it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
