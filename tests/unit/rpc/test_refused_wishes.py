"""What a guest refuses of a caller's wishes, and of its commands, seen by the caller: whose fault, and which field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool.ledger.views import CircuitState
from tests.unit.rpc.served import Served, serving
from vmm.simulated import CommandsFail, FilesFail
from vmpool.client import CallError, GuestFile, Wishes


async def test_a_file_without_a_directory_costs_its_caller_one_vm_and_nobody_anything_else(served: Served) -> None:
    launched = served.host.launched
    files = (GuestFile(path="/tmp/x", data=b""), GuestFile(path="/nope/x", data=b""))
    async with served.client() as client:
        with pytest.raises(CallError, match=r"^files\[1\]\.path: .*ENOENT") as refused:
            await client.acquire(wishes=Wishes(files=files))
        assert refused.value.status == "INVALID_ARGUMENT"
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        view = served.coordinator.views()[0]
        assert served.host.launched == launched + 1
        assert (view.failures_in_a_row, view.last_error, view.circuit) == (0, "", CircuitState.CLOSED)
        assert view.counters.hand_out_failures == 0


@pytest.mark.parametrize(
    ("code", "status", "field"),
    [
        ("ENOSPC", "RESOURCE_EXHAUSTED", "data"),
        ("ENOMEM", "RESOURCE_EXHAUSTED", "data"),
        ("EFBIG", "INVALID_ARGUMENT", "data"),
        ("EROFS", "INVALID_ARGUMENT", "path"),
        ("EISDIR", "INVALID_ARGUMENT", "path"),
        ("EIO", "FAILED_PRECONDITION", "path"),
        ("UNSUPPORTED", "FAILED_PRECONDITION", "path"),
    ],
)
async def test_a_guest_that_takes_no_file(vm_home: Path, code: str, status: str, field: str) -> None:
    async with serving(vm_home, faults=lambda _: (FilesFail(code=code),)) as served, served.client() as client:
        with pytest.raises(CallError, match=rf"files\[0\]\.{field}: .*{code}") as refused:
            await client.acquire(wishes=Wishes(files=(GuestFile(path="/tmp/x", data=b""),)))
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("command", "status", "field"),
    [
        ({"argv": ["no-such"]}, "INVALID_ARGUMENT", r"start\.argv\[0\]: "),
        ({"argv": ["true"], "working_directory": "/no"}, "INVALID_ARGUMENT", r"start\.working_directory: "),
    ],
)
async def test_a_command_that_cannot_be_started(
    served: Served, command: dict[str, Any], status: str, field: str
) -> None:
    async with served.client() as client, client.lease() as vm:
        with pytest.raises(CallError, match=field) as refused:
            async with client.exec(vm.lease_id, **command):
                pass
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("EAGAIN", "RESOURCE_EXHAUSTED", "EAGAIN"),
        ("ENOMEM", "RESOURCE_EXHAUSTED", "ENOMEM"),
        ("EMFILE", "RESOURCE_EXHAUSTED", "EMFILE"),
        ("E2BIG", "INVALID_ARGUMENT", r"start\.argv and start\.environment: are together"),
        ("EACCES", "INVALID_ARGUMENT", r"start\.argv\[0\]: "),
        ("EIO", "FAILED_PRECONDITION", "EIO"),
    ],
)
async def test_a_guest_that_starts_no_command(vm_home: Path, code: str, status: str, text: str) -> None:
    async with (
        serving(vm_home, faults=lambda _: (CommandsFail(code=code),)) as served,
        served.client() as client,
        client.lease() as vm,
    ):
        with pytest.raises(CallError, match=text) as refused:
            async with client.exec(vm.lease_id, ["true"]):
                pass
        assert refused.value.status == status


async def test_a_guest_that_breaks_the_protocol_ends_its_lease_and_tells_why(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served.client() as client:
        lease = await client.acquire()
        with pytest.raises(CallError, match="vm_lost: the guest agent sent garbage") as aborted:
            async with client.exec(lease.lease_id, ["sleep", "1000"]) as command:
                served.machine(lease.lease_id).break_protocol()
                await command.wait()
        assert aborted.value.status == "ABORTED"
        with pytest.raises(CallError, match=r"already ended .vm_lost: the guest agent sent garbage") as later:
            async with client.exec(lease.lease_id, ["true"]):
                pass
        assert later.value.status == "FAILED_PRECONDITION"
        view = served.coordinator.views()[0]
        assert (view.counters.lost_leased, view.failures_in_a_row) == (1, 0)
    told = [line for line in capsys.readouterr().out.splitlines() if "garbage" in line]
    assert len(told) == 1
    assert "warning" in told[0]
