"""Names of leases, and how a user's processes find each other's leases."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool.rpc.server import ServerSettings
from tests.unit.rpc.raw import ACQUIRE, RawClient, connected
from tests.unit.rpc.served import Served, serving
from vmpool.wire.generated.vmpool import v1 as wire

GET = "/vmpool.v1.Pool/GetLease"
LIST = "/vmpool.v1.Pool/ListLeases"
RELEASE = "/vmpool.v1.Pool/Release"
STATUS = "/vmpool.v1.Pool/Status"

ALICE, BOB = 4001, 4002


async def ask(raw: RawClient, path: str, request: Any, kind: type[Any]) -> Any:
    """The reply; the status and message as text if there is none."""
    call = await raw.request(path, request)
    reply = await raw.message(call, kind)
    return reply if reply is not None else " ".join(await raw.status(call))


async def acquire(raw: RawClient, **fields: Any) -> Any:
    reply = await ask(raw, ACQUIRE, wire.AcquireRequest(**fields), wire.AcquireReply)
    return reply if isinstance(reply, str) else reply.lease


async def get(raw: RawClient, **fields: Any) -> Any:
    reply = await ask(raw, GET, wire.GetLeaseRequest(**fields), wire.GetLeaseReply)
    return reply if isinstance(reply, str) else reply.lease


async def listed(raw: RawClient, **labels: str) -> list[str]:
    reply = await ask(raw, LIST, wire.ListLeasesRequest(labels=labels), wire.ListLeasesReply)
    return [lease.lease_id for lease in reply.leases]


@pytest.fixture
async def four(vm_home: Path) -> AsyncIterator[Served]:
    """A service with four ready VMs, which Alice and Bob may use."""
    settings = ServerSettings(allowed_uids=frozenset({0, ALICE, BOB}))
    async with serving(vm_home, size=4, settings=settings) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 4)
        yield served


@pytest.fixture
def calls_of(four: Served, call_as: Callable[[int], None]) -> Callable[[int], Any]:
    @asynccontextmanager
    async def of(uid: int) -> AsyncIterator[RawClient]:
        call_as(uid)
        async with connected(four.path) as raw:
            yield raw

    return of


async def test_a_lease_is_found_by_its_name_from_another_process(calls_of: Callable[[int], Any]) -> None:
    async with calls_of(ALICE) as raw:
        lease = await acquire(raw, name="builder-1", labels={"job": "7"})
        assert lease.name == "builder-1"
    async with calls_of(ALICE) as raw:
        found = await get(raw, name="builder-1")
        assert (found.lease_id, found.vm_id, found.name, found.labels) == (
            lease.lease_id,
            lease.vm_id,
            "builder-1",
            {"job": "7"},
        )
        assert found.guest == lease.guest
        assert (await get(raw, lease_id=lease.lease_id)).name == "builder-1"
        status = await ask(raw, STATUS, wire.StatusRequest(), wire.StatusReply)
        assert [each.name for each in status.leases] == ["builder-1"]


async def test_one_lease_of_a_user_has_a_name(calls_of: Callable[[int], Any]) -> None:
    async with calls_of(ALICE) as raw:
        first = await acquire(raw, name="one")
        assert (await acquire(raw, name="one")).startswith(
            "6 name: a lease of yours, or a request for one, already has"
        )
        await ask(raw, RELEASE, wire.ReleaseRequest(lease_id=first.lease_id), wire.ReleaseReply)
        assert (await get(raw, name="one")).startswith("5 name: none of your leases has the name 'one'")
        assert (await acquire(raw, name="one")).lease_id != first.lease_id


async def test_names_are_each_users_own(calls_of: Callable[[int], Any]) -> None:
    async with calls_of(ALICE) as raw:
        of_alice = await acquire(raw, name="one")
    async with calls_of(BOB) as raw:
        assert (await get(raw, name="one")).startswith("5 name")
        of_bob = await acquire(raw, name="one")
        assert (await get(raw, name="one")).lease_id == of_bob.lease_id
        assert (await get(raw, lease_id=of_alice.lease_id)).startswith("7 lease_id")
    async with calls_of(0) as raw:
        assert (await get(raw, name="one")).startswith("5 name")
        assert (await get(raw, lease_id=of_alice.lease_id)).name == "one"


async def test_who_comes_with_a_known_key_gets_the_lease_with_its_first_name(calls_of: Callable[[int], Any]) -> None:
    """As with labels."""
    async with calls_of(ALICE) as raw:
        first = await acquire(raw, name="one", idempotency_key="k")
        again = await acquire(raw, name="two", idempotency_key="k")
        assert (again.lease_id, again.name) == (first.lease_id, "one")
        assert (await get(raw, name="two")).startswith("5 name")


async def test_a_lease_that_has_ended_says_how(calls_of: Callable[[int], Any]) -> None:
    async with calls_of(ALICE) as raw:
        lease = await acquire(raw)
        await ask(raw, RELEASE, wire.ReleaseRequest(lease_id=lease.lease_id), wire.ReleaseReply)
        assert re.match("9 lease_id: .* has already ended", await get(raw, lease_id=lease.lease_id))
        assert (await get(raw, lease_id="lease-of-nobody")).startswith("5 lease_id")


async def test_leases_are_listed_by_their_labels_the_oldest_first(calls_of: Callable[[int], Any]) -> None:
    async with calls_of(ALICE) as raw:
        one = (await acquire(raw, labels={"job": "7", "team": "blue"})).lease_id
        two = (await acquire(raw, labels={"job": "7"})).lease_id
        assert await listed(raw) == [one, two]
        assert await listed(raw, job="7") == [one, two]
        assert await listed(raw, job="7", team="blue") == [one]
        assert await listed(raw, job="8") == []
    async with calls_of(BOB) as raw:
        assert await listed(raw) == []
        other = (await acquire(raw)).lease_id
    async with calls_of(0) as raw:
        assert await listed(raw) == [one, two, other]


@pytest.mark.parametrize("name", ["1st", "-x", "a b", "a/b", "n" * 64, "\N{SNOWMAN}", "a\n"])
async def test_what_cannot_be_a_name_is_an_invalid_argument(calls_of: Callable[[int], Any], name: str) -> None:
    async with calls_of(ALICE) as raw:
        assert re.match("3 name: .* is not a name; use 1 to 63 letters", await acquire(raw, name=name))
        assert (await get(raw, name=name)).startswith("3 name: ")
        assert await listed(raw) == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (wire.GetLeaseRequest(), "3 which: is not set"),
        (wire.GetLeaseRequest(lease_id=""), "3 lease_id: is empty"),
        (wire.GetLeaseRequest(name=""), "3 name: '' is not a name"),
    ],
)
async def test_a_lease_is_named_by_its_id_or_its_name(
    calls_of: Callable[[int], Any], request_: wire.GetLeaseRequest, reason: str
) -> None:
    async with calls_of(ALICE) as raw:
        assert (await ask(raw, GET, request_, wire.GetLeaseReply)).startswith(reason)
