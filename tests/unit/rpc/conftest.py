"""Fixtures of the gRPC tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pool.rpc import door
from pool.settings.permissions import Caller
from tests.unit.rpc.served import Served, serving


@pytest.fixture
async def served(vm_home: Path) -> AsyncIterator[Served]:
    """A service with two ready VMs of profile "default"."""
    async with serving(vm_home) as service:
        await service.until(lambda: service.coordinator.views()[0].ready == 2)
        yield service


@pytest.fixture
def call_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the kernel say that whoever connects from now on is another user."""

    def become(uid: int) -> None:
        monkeypatch.setattr(door, "caller_of", lambda _connection: Caller(uid=uid, gid=uid))

    return become
