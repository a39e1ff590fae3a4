"""Labels: the caller's own marks of a lease, shown to whom the lease is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.rpc.served import Served
from vmpool.client import CallError, Change, LeaseChange, Snapshot

LABELS = {"job": "7", "team/name": "blue sky"}


async def test_a_lease_has_the_labels_that_it_was_asked_with(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire(labels=LABELS)
        assert vm.labels == LABELS
        (lease,) = (await client.status()).leases
        assert lease.labels == LABELS


async def test_a_held_lease_has_labels_too(served: Served) -> None:
    async with served.client() as client, client.lease(labels=LABELS) as vm:
        assert vm.labels == LABELS
        assert served.coordinator.leases()[0].request.labels == LABELS


async def test_one_that_is_found_by_its_key_has_those_of_the_first_request(served: Served) -> None:
    async with served.client() as client:
        await client.acquire(idempotency_key="k", labels=LABELS)
        again = await client.acquire(idempotency_key="k", labels={"job": "8"})
        assert again.labels == LABELS


async def test_who_watches_sees_them(served: Served) -> None:
    async with served.client() as client, client.watch() as changes:
        first = await anext(changes)
        assert isinstance(first, Snapshot)
        vm = await client.acquire(labels=LABELS)
        granted = await _next_of_a_lease(changes)
        assert (granted.lease_id, granted.labels) == (vm.lease_id, LABELS)
    async with served.client() as client, client.watch() as changes:
        snapshot = await anext(changes)
        assert isinstance(snapshot, Snapshot)
        assert [lease.labels for lease in snapshot.leases] == [LABELS]


async def _next_of_a_lease(changes: AsyncIterator[Change]) -> LeaseChange:
    while not isinstance(change := await anext(changes), LeaseChange):
        pass
    return change


async def test_what_cannot_be_a_label_is_an_invalid_argument(served: Served) -> None:
    async with served.client() as client:
        with pytest.raises(CallError, match=r"labels\['a b'\]") as refused:
            await client.acquire(labels={"a b": "x"})
    assert refused.value.status == "INVALID_ARGUMENT"
    assert served.coordinator.leases() == ()
