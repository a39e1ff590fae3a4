"""A lease that is held outlives the service that gave it, if the next one restores it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.unit.cli.scripted import Answer, ScriptedService, held, status
from vmpool.client import ServiceUnavailableError, open_client


def methods(service: ScriptedService) -> list[str]:
    return [method for method, _ in service.calls]


async def until_lost(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(20):
        while "lease lease-1 is lost" not in caplog.text:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_held_lease_is_found_again_in_the_service_that_comes_next(service: ScriptedService) -> None:
    async with open_client(service.path) as client, client.lease() as vm:
        for times in (2, 3):
            await service.kill()
            await service.start()
            await service.called("Hold", times)
    holds = await service.called("Hold", 3)
    assert {hold.idempotency_key for hold in holds} == {holds[0].idempotency_key}
    assert holds[0].idempotency_key
    assert [release.lease_id for release in await service.called("Release")] == [vm.lease_id]


async def test_every_held_lease_has_a_key_of_its_own_unless_it_is_given_one(service: ScriptedService) -> None:
    async with (
        open_client(service.path) as client,
        client.lease(),
        client.lease(),
        client.lease(idempotency_key="job-7"),
    ):
        pass
    first, second, third = (hold.idempotency_key for hold in await service.called("Hold", 3))
    assert first != second
    assert third == "job-7"


async def test_a_service_that_hands_over_is_waited_for(service: ScriptedService) -> None:
    """It ends the call itself, and says that it is about to end; its successor has the lease."""
    service.answers["Hold"] = lambda _: Answer(held().replies, 14)
    service.answers["Status"] = lambda _: status(draining=True)
    async with open_client(service.path) as client, client.lease():
        await service.called("Status", 2)
        assert methods(service).count("Hold") == 1
        await service.kill()
        service.answers |= {"Hold": lambda _: held(), "Status": lambda _: status("lease-1")}
        await service.start()
        await service.called("Hold", 2)


async def test_a_lease_that_the_next_service_does_not_know_is_lost(
    service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_client(service.path) as client, client.lease():
        service.answers["Status"] = lambda _: status("lease-2")
        await service.kill()
        await service.start()
        await until_lost(caplog)
    assert methods(service) == ["Hold", "Status", "Release"]


async def test_another_lease_in_its_place_is_not_kept(
    service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_client(service.path) as client, client.lease():
        service.answers["Hold"] = lambda _: held("lease-2")
        await service.kill()
        await service.start()
        await service.given_up("Hold")
        await until_lost(caplog)
    assert methods(service) == ["Hold", "Status", "Hold", "Release"]


@pytest.mark.parametrize("reconnect_s", [0, 0.05])
async def test_a_service_that_does_not_come_back_is_given_up(
    service: ScriptedService, caplog: pytest.LogCaptureFixture, reconnect_s: float
) -> None:
    async with open_client(service.path) as client, client.lease(reconnect_s=reconnect_s):
        await service.kill()
        await until_lost(caplog)
        await service.start()
    assert methods(service) == ["Hold", "Release"]


async def test_a_command_that_runs_when_the_service_dies_ends_with_a_clear_error(service: ScriptedService) -> None:
    async with (
        open_client(service.path) as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["sleep", "9"]) as command,
    ):
        await service.kill()
        with pytest.raises(ServiceUnavailableError, match=r"the connection broke .* see its log"):
            await command.wait()


async def test_a_block_may_end_while_there_is_no_service(service: ScriptedService) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_client(service.path) as client, client.lease():
            await service.kill()
            raise ZeroDivisionError  # as it is, not in a group
