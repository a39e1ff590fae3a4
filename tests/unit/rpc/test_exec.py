"""Commands in leased VMs, through the SDK."""

from __future__ import annotations

import signal
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.unit.rpc.raw import EXEC, connected, framed
from tests.unit.rpc.served import Served, serving
from vmm.contract import Command
from vmm.simulated import StopIsSlow
from vmm.simulated.agent import SimulatedAgent
from vmm.simulated.machine import Power
from vmm.words.commands import CommandSpec, Terminal, TerminalSize
from vmm.words.processes import ExitReport
from vmpool.client import CallError, Client, CommandExit, Output, OutputStream, open_client
from vmpool.wire.generated.vmpool import v1 as wire

MIB = 1024 * 1024


async def test_output_and_exit_status(served: Served) -> None:
    async with served.client() as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["echo", "hello", "world"]) as command:
            events = [event async for event in command.events()]
        assert events == [Output(stream=OutputStream.STDOUT, data=b"hello world\n"), CommandExit(status=0)]
        async with client.exec(vm.lease_id, ["cat", "/no/such"]) as command:
            done = await command.collect()
        assert done.exit == CommandExit(status=1)
        assert b"No such file" in done.stderr


async def test_stdin_until_it_is_closed(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["cat"]) as command:
        for piece in (b"one ", b"", b"two"):
            await command.send_stdin(piece)
        await command.close_stdin()
        assert (await command.collect()).stdout == b"one two"
        await command.send_stdin(b"too late")
        await command.send_signal(9)


@pytest.mark.parametrize("given", [b"all of it", b""])
async def test_stdin_that_is_known_beforehand(served: Served, given: bytes) -> None:
    async with (
        served.client() as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["cat"], stdin=given) as command,
    ):
        assert (await command.collect()).stdout == given


async def test_stdin_that_is_given_with_the_start(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        start = wire.ExecStart(lease_id=vm.lease_id, argv=["cat"], stdin=b"all of it")
        call = await raw.start(EXEC)  # and the requests do not end: the command's stdin ends without that
        await raw.send(call, framed(wire.ExecRequest(start=start)))
        assert await raw.status(call) == ("0", "")
        assert framed(wire.ExecReply(stdout=b"all of it")) in raw.data[call]


async def test_a_signal(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["sleep", "9"]) as command:
        await command.send_signal(signal.SIGTERM)
        assert await command.wait() == CommandExit(signal=signal.SIGTERM)


async def test_the_time_limit(served: Served) -> None:
    async with (
        served.client() as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["sleep", "9"], time_limit_s=0.05) as command,
    ):
        assert await command.wait() == CommandExit(signal=signal.SIGKILL, timed_out=True)


@pytest.mark.parametrize("silent", ["before it is started", "while it runs", "stopped"])
async def test_a_time_limit_that_the_guest_does_not_keep_is_kept_for_the_caller(
    served: Served, autojump_clock: trio.testing.MockClock, silent: str
) -> None:
    began = trio.current_time()
    async with served.client() as client:
        lease = await client.acquire()
        machine = served.machine(lease.lease_id)
        if silent == "before it is started":
            machine.mute()
        with pytest.raises(CallError, match="time limit of 5 s is over, and its guest has been silent for 8") as error:
            async with client.exec(lease.lease_id, ["sleep", "9"], time_limit_s=5.0) as command:
                if silent == "while it runs":
                    machine.mute()
                elif silent == "stopped":
                    machine.power(Power.PAUSED)
                await command.wait()
        assert error.value.status == "DEADLINE_EXCEEDED"
        assert trio.current_time() - began == pytest.approx(13.0, abs=1.0)
        await client.release(lease.lease_id)


async def test_who_takes_the_output_late_is_waited_for(served: Served, autojump_clock: trio.testing.MockClock) -> None:
    """It is not the guest that is silent."""
    async with (
        served.client() as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["yes"], time_limit_s=5.0) as command,
    ):
        await trio.sleep(1000.0)
        assert await command.wait() == CommandExit(signal=signal.SIGKILL, timed_out=True)


async def test_time_in_which_the_service_stood_still_is_not_the_guests(
    served: Served, mock_clock: trio.testing.MockClock
) -> None:
    async with (
        served.client() as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["sleep", "9"], time_limit_s=5.0) as command,
    ):
        mock_clock.jump(1000.0)
        mock_clock.autojump_threshold = 0
        assert await command.wait() == CommandExit(signal=signal.SIGKILL, timed_out=True)


async def test_a_start_says_all_that_there_is_to_say(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[CommandSpec] = []

    async def start_command(_agent: SimulatedAgent, spec: CommandSpec) -> Command:
        started.append(spec)
        return await original(_agent, attrs.evolve(spec, argv=["cat"], user="", terminal=None))

    original = SimulatedAgent.start_command
    monkeypatch.setattr(SimulatedAgent, "start_command", start_command)
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        terminal = wire.Terminal(rows=50, columns=132, term="vt100")
        start = wire.ExecStart(lease_id=vm.lease_id, shell="cat", user="user", terminal=terminal, leave_children=True)
        call = await raw.request(EXEC, wire.ExecRequest(start=start))
        assert (await raw.reply(call, wire.ExecReply)).started is not None
        assert (await raw.status(call)) == ("0", "")
    (spec,) = started
    assert (spec.argv, spec.user, spec.leave_children) == (("/bin/sh", "-c", "cat"), "user", True)
    assert spec.terminal == Terminal(size=TerminalSize(rows=50, columns=132), term="vt100")


async def test_a_new_size_is_for_a_command_with_a_terminal(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        call = await raw.start(EXEC)
        await raw.send(call, framed(wire.ExecRequest(start=wire.ExecStart(lease_id=vm.lease_id, argv=["cat"]))))
        await raw.send(call, framed(wire.ExecRequest(resize=wire.Terminal(rows=70000))))
        assert await raw.status(call) == ("3", "resize.rows: 70000 is out of range; the maximum is 65535")


async def test_environment_and_working_directory(served: Served) -> None:
    async with served.client() as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["env"], environment={"COLOUR": "red"}) as command:
            assert b"COLOUR=red\n" in (await command.collect()).stdout
        async with client.exec(vm.lease_id, ["pwd"], working_directory="/tmp") as command:
            assert (await command.collect()).stdout == b"/tmp\n"


async def test_many_commands_at_once_in_one_vm(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, trio.open_nursery() as nursery:

        async def run(number: int) -> None:
            async with client.exec(vm.lease_id, ["echo", str(number)]) as command:
                assert (await command.collect()).stdout == f"{number}\n".encode()

        for number in range(120):  # more than one connection takes
            nursery.start_soon(run, number)


async def test_large_output_arrives_whole(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["yes"]) as command:
        received = 0
        async for event in command.events():
            assert isinstance(event, Output)
            received += len(event.data)
            if received > 100 * MIB:
                break


async def test_output_that_nobody_takes_keeps_the_program_waiting(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["yes"]):
        await trio.testing.wait_all_tasks_blocked(0.1)  # it would never be idle if the output went somewhere


async def test_stdin_that_nobody_reads_keeps_the_caller_waiting(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["sleep", "1000"]) as command:
        sent = 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def stop_when_idle() -> None:
                    await trio.testing.wait_all_tasks_blocked(0.1)
                    scope.cancel()

                nursery.start_soon(stop_when_idle)
                while sent < 64 * MIB:
                    await command.send_stdin(b"x" * 65536)
                    sent += 65536
        assert sent < 4 * MIB


async def _abort(client: Client, lease_id: str, started: trio.Event, errors: list[CallError]) -> None:
    with pytest.raises(CallError) as error:
        async with client.exec(lease_id, ["sleep", "1000"]) as command:
            started.set()
            await command.wait()
    errors.append(error.value)


@pytest.mark.parametrize("end", ["vm dies", "released", "drain"])
async def test_a_lease_that_ends_meanwhile_aborts_and_tells_its_fate(served: Served, end: str) -> None:
    errors: list[CallError] = []
    started = trio.Event()
    async with served.client() as client:
        lease = await client.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_abort, client, lease.lease_id, started, errors)
            await started.wait()
            if end == "vm dies":
                report = ExitReport(status=0, cause="its guest powered off", console_tail="reboot: Power down")
                served.machine(lease.lease_id).exit(report)
            elif end == "released":
                await client.release(lease.lease_id)
            else:
                await served.coordinator.shut_down()
    (error,) = errors
    assert error.status == "ABORTED"
    fates = {"vm dies": "its guest powered off (exit", "released": "released: by its owner", "drain": "shutdown: "}
    assert fates[end] in error.message


async def test_in_a_lease_that_has_ended(served: Served) -> None:
    async with served.client() as client:
        async with client.lease() as vm:
            pass
        with pytest.raises(CallError, match="already ended \\(released") as error:
            async with client.exec(vm.lease_id, ["true"]):
                pass
    assert error.value.status == "FAILED_PRECONDITION"


async def test_leaving_the_block_kills_the_command(served: Served) -> None:
    async with served.client() as client, client.lease() as vm:
        machine = served.machine(vm.lease_id)
        async with client.exec(vm.lease_id, ["yes"]):
            assert machine._scopes
        await served.until(lambda: not machine._scopes)


async def test_a_released_lease_ends_its_commands_before_its_vm_is_gone(vm_home: Path) -> None:
    async with serving(vm_home, faults=lambda _: (StopIsSlow(delay_s=0.5),)) as served, served.client() as client:
        vm = await client.acquire()
        with pytest.raises(CallError, match="released: by its owner"):
            async with client.exec(vm.lease_id, ["sleep", "1000"]) as command:
                await client.release(vm.lease_id)
                await command.wait()
        assert vm.vm_id in served.host.alive


async def test_errors_inside_the_blocks_come_out_as_they_are(served: Served) -> None:
    with pytest.raises(KeyError):
        async with open_client(served.path) as client, client.lease() as vm, client.exec(vm.lease_id, ["cat"]):
            raise KeyError("mine")
    await served.until(served.lost)
