"""Fixtures of the gRPC tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.rpc.served import Served, serving


@pytest.fixture
async def served(vm_home: Path) -> AsyncIterator[Served]:
    """A service with two ready VMs of profile "default"."""
    async with serving(vm_home) as service:
        await service.until(lambda: service.coordinator.views()[0].ready == 2)
        yield service
