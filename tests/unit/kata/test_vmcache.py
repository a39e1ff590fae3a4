"""The layer of the service that serves Kata's clients: what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from pool.kata.cache.endpoint import open_cache_endpoint
from pool.kata.cache.layer import CacheLayer
from pool.kata.records.gokinds import Generation
from pool.observe.spans import NO_SPANS
from tests.unit.kata.cache import Source

pytestmark = pytest.mark.usefixtures("leak_check")


@pytest.mark.parametrize("reason", ["", "vmpool.agent: is another's"])
async def test_vms_that_stock_clients_cannot_use_are_warned_of_at_the_start(
    vm_home: Path, nursery: trio.Nursery, reason: str
) -> None:
    path = vm_home / "cache.sock"
    source: Any = Source()
    with open_cache_endpoint(path) as sock, structlog.testing.capture_logs() as logs:
        layer = CacheLayer(
            endpoint=path,
            sock=sock,
            source=source,
            spans=NO_SPANS,
            generation=Generation.RUNTIME_1X,
            useless_to_kata=reason,
        )
        await nursery.start(layer.run)
        layer.stop()
    started, *warned = [entry for entry in logs if entry["event"] != "VM cache server stop"]
    assert (started["event"], started["kata"]) == ("VM cache server start", "runtime 1.x")
    assert [(entry["log_level"], entry["reason"]) for entry in warned] == ([("warning", reason)] if reason else [])
