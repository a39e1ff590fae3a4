"""Who may call is decided by the kernel's word on the peer."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import trio

from pool.rpc.peer import caller_of
from pool.rpc.server import ServerSettings
from pool.settings.permissions import Caller, default_uids
from tests.unit.rpc.served import EVIDENCE, CoordinatorWithEvidence, Served, serving
from vmpool.client import CallError


def test_the_caller_is_who_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert caller_of(ours) == Caller(uid=os.geteuid(), gid=os.getegid(), groups=frozenset(os.getgroups()))


def test_root_and_the_services_user_may_call_by_default() -> None:
    assert default_uids() == {0, os.geteuid()}


async def test_others_are_refused_every_call(vm_home: Path) -> None:
    settings = ServerSettings(allowed_uids=frozenset({os.geteuid() + 1}))
    async with serving(vm_home, settings=settings) as served, served.client() as client:
        for call in (client.status, client.acquire, lambda: client.release("x")):
            with pytest.raises(CallError, match=f"uid {os.geteuid()} may not use this service") as refused:
                await call()
            assert refused.value.status == "PERMISSION_DENIED"
        with pytest.raises(CallError, match="may not use"):
            async with client.exec("x", ["true"]):
                pass


async def test_the_owner_of_a_lease_is_the_caller(served: Served) -> None:
    async with served.client() as client:
        await client.acquire()
    (lease,) = served.coordinator.leases()
    assert lease.owner.uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can call as somebody else")
async def test_another_uid_is_seen_as_itself(vm_home: Path) -> None:
    settings = ServerSettings(allowed_uids=frozenset({0, 65534}))
    vm_home.chmod(0o755)  # noqa: ASYNC240 - it takes no time
    script = (
        "import os, sys, trio\n"
        "from vmpool.client import open_client\n"
        "os.setuid(65534)\n"  # only now: the checkout may be where this user cannot read
        "async def main():\n"
        "    async with open_client(sys.argv[1]) as client:\n"
        "        vm = await client.acquire(); status = await client.status()\n"
        "        print(vm.lease_id, [lease.owner_uid for lease in status.leases], status.profiles[0].last_evidence)\n"
        "trio.run(main)\n"
    )
    service = serving(vm_home, settings=settings, coordinator_type=CoordinatorWithEvidence)
    async with service as served, served.client() as root:
        served.path.chmod(0o666)
        await root.acquire()
        done = await trio.run_process([sys.executable, "-c", script, os.fspath(served.path)], capture_stdout=True)
        lease_id, uids = done.stdout.decode().split()[:2]
        assert uids == "[65534]"
        assert EVIDENCE not in done.stdout.decode()
        assert {lease.owner.uid for lease in served.coordinator.leases()} == {0, 65534}
        await root.release(lease_id)


ANOTHER_CALLS = """\
import os, sys, trio
from vmpool.client import CallError, open_client
uid, gid, groups = int(sys.argv[2]), int(sys.argv[3]), [int(group) for group in sys.argv[4:]]
os.setgroups(groups); os.setgid(gid); os.setuid(uid)  # only now: the checkout may be where this user cannot read
async def main():
    async with open_client(sys.argv[1]) as client:
        try:
            await client.status()
        except CallError as error:
            print(error.status)
        else:
            print("OK")
trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can call as somebody else")
@pytest.mark.parametrize(
    ("caller", "status"),
    [
        ((65534, 65534), "PERMISSION_DENIED"),
        ((65534, 65534, 4241, 4243), "PERMISSION_DENIED"),
        ((65534, 4242), "OK"),
        ((65534, 65534, 7, 4242), "OK"),
        ((4300, 65534), "OK"),
        ((0, 0), "OK"),
        ((65534, 65534, *range(4000, 4300)), "PERMISSION_DENIED"),
        ((65534, 4242, *range(4000, 4300)), "OK"),
    ],
    ids=[
        "nobody",
        "other groups",
        "primary group",
        "supplementary group",
        "user",
        "root",
        "too many to be told",
        "too many, but the primary",
    ],
)
async def test_a_caller_is_admitted_by_its_uid_or_any_of_its_groups(
    vm_home: Path, caller: tuple[int, ...], status: str
) -> None:
    """Over the socket and the directory of a service, which only the socket's group can reach."""
    settings = ServerSettings(allowed_uids=default_uids() | {4300}, allowed_gids=frozenset({4242}))
    vm_home.chmod(0o711)  # noqa: ASYNC240 - it takes no time
    home = vm_home / "run"
    home.mkdir()
    os.chown(home, -1, caller[1])
    home.chmod(0o710)
    async with serving(home, settings=settings) as served:
        os.chown(served.path, -1, caller[1])
        served.path.chmod(0o660)
        done = await trio.run_process(
            [sys.executable, "-c", ANOTHER_CALLS, os.fspath(served.path), *map(str, caller)], capture_stdout=True
        )
    assert done.stdout.decode().strip() == status
