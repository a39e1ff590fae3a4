"""The VMs of samples: whose service they are of, and what their leases are called."""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import Any, Final

import attrs

from vmpool import aio
from vmpool.aio import CallError
from vmpool.frameworks.inspect_config import VmpoolSandboxConfig

TASK_LABEL: Final = "inspect-ai.task"
"""Every lease of this provider has it."""
SAMPLE_LABEL: Final = "inspect-ai.sample"
RUN_LABEL: Final = "inspect-ai.run"
RUN: Final = secrets.token_hex(4)
"""This process."""

MAX_LABEL_BYTES: Final = 256

STANDALONE_SIZE: Final = 2
"""VMs that are ready while samples run."""


@attrs.define
class _Standalone:
    pool: aio.Pool
    tasks: int = 1


_standalone: dict[VmpoolSandboxConfig, _Standalone] = {}
"""The services that tasks have started, until the last of these ends."""


async def begin_task(config: VmpoolSandboxConfig) -> None:
    """Starts the service, if it is to be the evaluation's own; otherwise looks whether there is one."""
    if not config.standalone:
        async with aio.connect(config.socket) as pool:
            await pool.status()
    elif (running := _standalone.get(config)) is not None:
        running.tasks += 1
    else:
        _standalone[config] = _Standalone(await aio.standalone(size=STANDALONE_SIZE, profile=_machine(config)))


async def end_task(config: VmpoolSandboxConfig) -> None:
    """Ends the evaluation's own service with the last of its tasks."""
    if (running := _standalone.get(config)) is None:
        return
    running.tasks -= 1
    if running.tasks == 0:
        del _standalone[config]
        await running.pool.aclose()


async def begin_sample(
    config: VmpoolSandboxConfig, task: str, sample: str, ends: contextlib.AsyncExitStack
) -> tuple[aio.Pool, aio.Vm]:
    """A VM, and what it was leased of. What is to be done at the end is on the stack."""
    if config.standalone:
        pool = _standalone[config].pool
    else:
        pool = await ends.enter_async_context(aio.connect(config.socket))
    return pool, await _lease(pool, config, task, sample, ends)


async def end_samples(pool: aio.Pool, which: str | None) -> None:
    """Ends the VMs of all samples of this user, or of one run, or one by its lease's id or name."""
    for lease in await pool.leases():
        if TASK_LABEL not in lease.labels:
            continue
        if which is None or which in (lease.lease_id, lease.name, lease.labels.get(RUN_LABEL)):
            await _release(pool, lease.lease_id)


async def _lease(
    pool: aio.Pool, config: VmpoolSandboxConfig, task: str, sample: str, ends: contextlib.AsyncExitStack
) -> aio.Vm:
    """Its end is on the stack."""
    wishes: dict[str, Any] = {
        "profile": config.profile,
        "name": f"inspect-{re.sub(r'[^A-Za-z0-9._-]', '-', task)[:40]}-{secrets.token_hex(4)}",
        "labels": {TASK_LABEL: _cut(task), SAMPLE_LABEL: _cut(sample), RUN_LABEL: RUN},
        "environment": config.environment,
        **({} if config.standalone else _machine(config)),
        "timeout": config.timeout_s,
    }
    if config.keep_s is None:
        return await ends.enter_async_context(pool.vm(**wishes))
    vm = await pool.acquire(ttl=config.keep_s, **wishes)
    ends.push_async_callback(_release, pool, vm.lease_id)
    return vm


def _machine(config: VmpoolSandboxConfig) -> dict[str, int]:
    """Of a profile of its own, or what is added to the service's."""
    wanted = {"vcpus": config.vcpus, "memory_mib": config.memory_mib}
    return {key: value for key, value in wanted.items() if value is not None}


async def _release(pool: aio.Pool, lease_id: str) -> None:
    try:
        vm = await pool.get(lease_id)
        await vm.release()
    except CallError as error:
        if error.status not in ("NOT_FOUND", "FAILED_PRECONDITION"):  # it has run out, or was cleaned up
            raise


async def prepare_directory(vm: aio.Vm, config: VmpoolSandboxConfig) -> str:
    """Where commands run and relative paths begin."""
    if config.working_directory:
        await vm.files.make_directory(config.working_directory, parents=True, user=config.user)
        return config.working_directory
    # Commands run there as other users, too, whom a home does not let in everywhere.
    home = await vm.run("cd && { chmod a+rx . 2>&- || :; } && pwd", user=config.user, check=True)
    return home.stdout.removesuffix("\n")


def _cut(text: str) -> str:
    return text.encode()[:MAX_LABEL_BYTES].decode(errors="ignore")
