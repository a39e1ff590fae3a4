"""Signals: the first one ends a command in good order, or is the guest's; the second one ends it wherever it waits."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.running import at_a_terminal, vmpool_argv
from tests.unit.cli.command import environment, narrow_pipe
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire

STARTED = wire.ExecReply(started=wire.ExecStarted())
READY = wire.ExecReply(stdout=b"ready")
ENDED = wire.ExecReply(exit=wire.ExecExit(status=0))
NEVER = Answer((), None)

TERMINATED = 128 + signal.SIGTERM


@attrs.frozen
class Running:
    process: trio.Process

    def send(self, *numbers: int) -> None:
        """Those of different numbers are all taken, in this order if that is ascending."""
        for number in numbers:
            self.process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        with trio.fail_after(60):
            said = b"".join([chunk async for chunk in self.process.stderr])
            return await self.process.wait(), said.decode()


@contextlib.asynccontextmanager
async def running(
    path: Path, *line: str, prefix: Sequence[str] = (), stdout: int = subprocess.DEVNULL
) -> AsyncIterator[Running]:
    process = await trio.lowlevel.open_process(
        [*at_a_terminal([]), *prefix, *vmpool_argv(*line)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(path),
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


WAITING = [
    (("run", "--", "true"), "Hold", "Hold"),
    (("run", "--", "true"), "Exec", "Exec"),
    (("acquire",), "Acquire", "Acquire"),
    (("exec", "lease-1", "--", "true"), "Exec", "Exec"),
    (("release", "lease-1"), "Release", "Release"),
    (("status",), "Status", "Status"),
    (("watch",), "Watch", "Watch"),
]


@pytest.mark.parametrize(("line", "method", "given_up"), WAITING)
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "vmpool: interrupted\n"), (signal.SIGTERM, TERMINATED, "vmpool: ended by SIGTERM\n")],
)
async def test_the_first_one_ends_what_waits_for_the_service(
    service: ScriptedService, line: tuple[str, ...], method: str, given_up: str, number: int, code: int, said: str
) -> None:
    service.answers[method] = lambda _: NEVER
    async with running(service.path, *line) as vmpool:
        await service.called(method)
        vmpool.send(number)
        assert await vmpool.ended() == (code, said)
    await service.given_up(given_up)


async def signals_of(service: ScriptedService, number: int) -> list[int]:
    """Those that came to the guest, once this one has."""
    for times in itertools.count(1):
        came = [message.signal for message in await service.later("Exec", times) if message.signal is not None]
        if number in came:
            return came
    raise AssertionError


@pytest.mark.parametrize("line", [("run", "--", "true"), ("exec", "lease-1", "--time-limit", "900", "--", "true")])
async def test_the_first_one_is_the_commands_and_the_second_one_ours(
    service: ScriptedService, line: tuple[str, ...]
) -> None:
    """The guest does not answer: its QEMU is stopped, say, so that its command takes no notice."""
    service.answers["Exec"] = lambda _: Answer((STARTED, READY), None)
    with narrow_pipe() as (reader, writer):
        async with running(service.path, *line, stdout=writer) as vmpool:
            assert await trio.to_thread.run_sync(os.read, reader, 1) == b"r"
            vmpool.send(signal.SIGINT)
            assert await signals_of(service, signal.SIGINT) == [signal.SIGINT]
            assert vmpool.process.poll() is None
            vmpool.send(signal.SIGINT)
            assert await vmpool.ended() == (130, "")


async def test_the_second_one_ends_a_release_that_is_not_answered(service: ScriptedService) -> None:
    """The first one alone leaves it some seconds, and is what the exit code tells then."""
    service.answers |= {"Exec": lambda _: Answer((STARTED, ENDED)), "Release": lambda _: NEVER}
    async with running(service.path, "run", "--", "true") as vmpool:
        await service.called("Release")
        vmpool.send(signal.SIGINT, signal.SIGTERM)
        assert await vmpool.ended() == (TERMINATED, "")


async def test_the_second_one_ends_a_command_whose_output_nobody_reads(service: ScriptedService) -> None:
    service.answers["Exec"] = lambda _: Answer((STARTED, wire.ExecReply(stdout=b"r" * 16_000)), None)
    with narrow_pipe() as (reader, writer):
        async with running(service.path, "run", "--", "yes", stdout=writer) as vmpool:
            assert await trio.to_thread.run_sync(os.read, reader, 1) == b"r"
            vmpool.send(signal.SIGINT)
            assert await signals_of(service, signal.SIGINT) == [signal.SIGINT]
            vmpool.send(signal.SIGTERM)
            assert await vmpool.ended() == (TERMINATED, "")


async def test_one_that_was_ignored_stays_so(service: ScriptedService) -> None:
    service.answers["Exec"] = lambda _: Answer((STARTED, READY), None)
    ignoring = ("env", "--ignore-signal=HUP")
    with narrow_pipe() as (reader, writer):
        async with running(service.path, "run", "--", "true", prefix=ignoring, stdout=writer) as vmpool:
            assert await trio.to_thread.run_sync(os.read, reader, 1) == b"r"
            vmpool.send(signal.SIGHUP, signal.SIGTERM)
            assert await signals_of(service, signal.SIGTERM) == [signal.SIGTERM]
            vmpool.send(signal.SIGTERM)
            assert await vmpool.ended() == (TERMINATED, "")


async def test_a_result_that_nobody_takes_can_be_interrupted(service: ScriptedService) -> None:
    """It is printed when nothing is left to do with the service."""
    profile = wire.ProfileStatus(
        name="default", producer=wire.ProducerStatus(), counters=wire.PoolCounters(), last_error="x" * 10_000
    )
    service.answers["Status"] = lambda _: Answer((wire.StatusReply(profiles=[profile]),))
    with narrow_pipe() as (reader, writer):
        async with running(service.path, "status", stdout=writer) as vmpool:
            assert await trio.to_thread.run_sync(os.read, reader, 1) == b"v"
            vmpool.send(signal.SIGINT)
            code, said = await vmpool.ended()
            assert (code, said.strip()) == (130, "vmpool: interrupted")
