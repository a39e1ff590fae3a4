"""A caller's mistake costs that caller one VM at most, and nobody else anything."""

from __future__ import annotations

import pytest

from tests.running import RunningService
from tests.waiting import until
from vmpool.client import CallError, GuestFile, Wishes, open_client

pytestmark = pytest.mark.timeout(180)


async def test_a_file_without_a_directory(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:

        async def is_full() -> bool:
            (profile,) = (await client.status()).profiles
            return profile.ready == profile.size and not profile.producing and not profile.stopping

        await until(is_full)
        before = set(service.qemus())
        files = (GuestFile(path="/nope/x", data=b"x"),)
        with pytest.raises(CallError, match=r"files\[0\].path: .*No such file") as refused:
            await client.acquire(wishes=Wishes(files=files))
        assert refused.value.status == "INVALID_ARGUMENT"
        await until(is_full)
        assert len(before - set(service.qemus())) == 1
        (profile,) = (await client.status()).profiles
        assert (profile.failures_in_a_row, profile.circuit, profile.last_error) == (0, "closed", "")


async def test_commands_that_no_program_can_be_started_with_leave_the_lease_as_it_is(service: RunningService) -> None:
    async with open_client(service.socket_path) as client, client.lease() as vm:
        for argv, field in (
            (["true", *["x"] * 12_000], "argv"),
            (["true", "x" * 200_000], r"start\.argv\[1\]"),
            (["/no/such"], r"start\.argv\[0\]"),
        ):
            with pytest.raises(CallError, match=field):
                async with client.exec(vm.lease_id, argv):
                    pass
        with pytest.raises(CallError, match=r"start\.working_directory: .*ENOENT"):
            async with client.exec(vm.lease_id, ["true"], working_directory="/no/such"):
                pass
        async with client.exec(vm.lease_id, ["echo", "there"]) as command:
            assert (await command.collect()).stdout == b"there\n"
