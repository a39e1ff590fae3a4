"""A time limit that nobody keeps, neither guest nor service: the client does not wait for ever."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.client import CallError, open_client
from vmpool.client.remote import LATE_END_S
from vmpool.wire.generated.vmpool import v1 as wire

STARTED = wire.ExecReply(started=wire.ExecStarted())
ENDED = wire.ExecReply(exit=wire.ExecExit(status=0))


@pytest.mark.parametrize("replies", [(), (STARTED,), (STARTED, wire.ExecReply(stdout=b"some"))])
async def test_a_command_of_which_nothing_is_heard_is_given_up(
    service: ScriptedService, autojump_clock: trio.testing.MockClock, replies: tuple[wire.ExecReply, ...]
) -> None:
    service.answers["Exec"] = lambda _: Answer(replies, None)
    began = trio.current_time()
    async with open_client(service.path) as client:
        with pytest.raises(
            CallError, match="no report of the command's end within 10 s of its time limit, 8 s"
        ) as caught:
            async with client.exec("lease-1", ["true"], time_limit_s=8.0) as command:
                await command.collect()
        assert caught.value.status == "DEADLINE_EXCEEDED"
        assert trio.current_time() - began == pytest.approx(8.0 + LATE_END_S)
        await service.given_up("Exec")


async def test_one_whose_output_is_taken_late_is_not(
    service: ScriptedService, autojump_clock: trio.testing.MockClock
) -> None:
    service.answers["Exec"] = lambda _: Answer((STARTED, wire.ExecReply(stdout=b"some"), ENDED))
    async with open_client(service.path) as client, client.exec("lease-1", ["true"], time_limit_s=8.0) as command:
        await trio.sleep(1000.0)
        assert (await command.collect()).stdout == b"some"


async def test_without_a_time_limit_it_is_waited_for(
    service: ScriptedService, autojump_clock: trio.testing.MockClock
) -> None:
    service.answers["Exec"] = lambda _: Answer((STARTED,), None)
    async with open_client(service.path) as client, client.exec("lease-1", ["true"]) as command:
        with trio.move_on_after(100_000.0) as patience:
            await command.wait()
        assert patience.cancelled_caught
