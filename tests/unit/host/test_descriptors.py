"""How the descriptors are shared between clients and VMs."""

from __future__ import annotations

import resource

import pytest

from pool.host.descriptors import MIN_CONNECTIONS, connections_within, needed


@pytest.mark.parametrize(
    ("limit", "vms", "connections"),
    [
        (20_000, 10, 10_000),
        (20_000, 2000, 20_000 - needed(vms=2000)),
        (1024, 2, 512),
        (1024, 1000, MIN_CONNECTIONS),
        (resource.RLIM_INFINITY, 2, 2**19),
    ],
    ids=["half", "what the VMs leave", "a small limit", "too small a limit", "none"],
)
def test_connections_have_half_or_what_the_vms_leave(limit: int, vms: int, connections: int) -> None:
    assert connections_within(limit, vms=vms) == connections
