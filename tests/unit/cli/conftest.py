"""Fixtures of the command's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.cli.scripted import Answer, ScriptedService, found, held, leases, scripted_service, status
from tests.unit.rpc.served import Served, serving
from vmpool.wire.generated.vmpool import v1 as wire


@pytest.fixture
async def served(vm_home: Path) -> AsyncIterator[Served]:
    """A service with two ready VMs of profile "default"."""
    async with serving(vm_home) as service:
        await service.until(lambda: service.coordinator.views()[0].ready == 2)
        yield service


@pytest.fixture
async def service(vm_home: Path) -> AsyncIterator[ScriptedService]:
    """One that gives lease-1 and restores it."""
    async with scripted_service(vm_home / "pool.sock") as scripted:
        scripted.answers |= {
            "Hold": lambda _: held(),
            "GetLease": found,
            "ListLeases": lambda _: leases("lease-1"),
            "Status": lambda _: status("lease-1"),
            "Release": lambda _: Answer((wire.ReleaseReply(),)),
            "Exec": lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()),), None),
        }
        yield scripted
