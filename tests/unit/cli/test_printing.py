"""Results that cannot be written: stdout is full, closed, or has lost its reader."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from tests.running import vmpool_argv
from tests.unit.cli.command import Done, environment, narrow_pipe
from tests.unit.cli.scripted import Answer, ScriptedService, acquired
from tests.unit.rpc.served import Served
from vmpool.wire.generated.vmpool import v1 as wire

NOBODY_READS = 128 + signal.SIGPIPE

FULL = ">/dev/full", 1, "No space left on device"
CLOSED = ">&-", 1, "Bad file descriptor"
UNREAD = ">&$UNREAD", NOBODY_READS, ""


async def shell(socket_path: Path, script: str) -> Done:
    """`vmpool` is the command under test; descriptor $UNREAD is a pipe without a reader."""
    reader, unread = os.pipe()
    os.close(reader)
    try:
        with trio.fail_after(60):
            done = await trio.run_process(
                ["bash", "-c", f'vmpool() {{ {shlex.join(vmpool_argv())} "$@"; }}; {script}'],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environment(socket_path) | {"UNREAD": str(unread)},
                pass_fds=[unread],
            )
    finally:
        os.close(unread)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(("redirection", "code", "why"), [FULL, CLOSED, UNREAD])
@pytest.mark.parametrize("options", ["", "--json"])
async def test_a_lease_that_cannot_be_printed_is_released(
    served: Served, options: str, redirection: str, code: int, why: str
) -> None:
    done = await shell(served.path, f"vmpool acquire {options} {redirection}")
    assert done.returncode == code
    released, *rest = done.stderr.splitlines()
    assert released.startswith("vmpool: lease-")
    assert released.endswith(" could not be printed and was released")
    assert rest == ([f"vmpool: cannot write to stdout: {why}"] if why else [])
    assert served.coordinator.leases() == ()


async def test_one_with_a_key_may_be_known_and_is_kept(served: Served) -> None:
    done = await shell(served.path, "vmpool acquire --key job-7 >/dev/full")
    assert done.returncode == 1
    (lease,) = served.coordinator.leases()
    assert f"{lease.lease_id} could not be printed; acquire it again with --key job-7" in done.stderr
    again = await shell(served.path, "vmpool acquire --key job-7")
    assert again.stdout == f"{lease.lease_id}\n"


async def test_one_that_cannot_be_released_either_is_told(service: ScriptedService) -> None:
    service.answers |= {"Acquire": lambda _: Answer((acquired(),)), "Release": lambda _: Answer((), 14)}
    done = await shell(service.path, "vmpool acquire >/dev/full")
    assert done.returncode == 1
    assert "vmpool: lease-1 could not be printed or released: " in done.stderr


async def test_one_that_nobody_waits_for_is_released(service: ScriptedService) -> None:
    """Its reader reads nothing, and the pipe is full; whoever waited presses Ctrl-C."""
    service.answers["Acquire"] = lambda _: Answer((acquired(match=wire.Match(profile="small")),))
    with narrow_pipe() as (_, writer):
        os.write(writer, bytes(4096))
        process = await trio.lowlevel.open_process(
            vmpool_argv("acquire", "--cpu-model", "max"),
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(service.path),
        )
        assert process.stderr is not None
        async with process.stderr as stderr:
            with trio.fail_after(60):
                said = await stderr.receive_some()  # that the lease is there
                process.send_signal(signal.SIGTERM)
                said += b"".join([data async for data in stderr])
                assert await process.wait() == 128 + signal.SIGTERM
    assert said.decode().splitlines() == [
        "vmpool: served from the pool of profile small",
        "vmpool: lease-1 could not be printed and was released",
        "vmpool: ended by SIGTERM",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "status --json",
        "watch",
        "watch --json",
        "doctor --json",
        "doctor",
        "--help",
        "run --help",
        "--version",
    ],
)
@pytest.mark.parametrize(("redirection", "code", "why"), [FULL, CLOSED, UNREAD])
async def test_other_results_are_an_error(served: Served, command: str, redirection: str, code: int, why: str) -> None:
    done = await shell(served.path, f"vmpool {command} {redirection}")
    assert (done.returncode, done.stdout) == (code, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&$UNREAD"])
async def test_an_error_that_cannot_be_told_keeps_its_exit_code(served: Served, redirection: str) -> None:
    for command, code in (
        ("run --profile none -- true", 125),
        ("release lease-none", 1),
        ("run --bogus -- true", 2),
        ("acquire --cpu-model max", 1),
    ):
        done = await shell(served.path, f"vmpool {command} {redirection}")
        assert (done.returncode, done.stdout, done.stderr) == (code, "", ""), command


async def test_a_command_that_prints_nothing_needs_no_stdout(served: Served) -> None:
    done = await shell(served.path, "vmpool resize default 1 >&-; vmpool run -- true >&-")
    assert (done.returncode, done.stderr) == (0, "")


# -- the output of the guest's command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirection", "code", "why"),
    [
        (">/dev/full", 125, "vmpool: cannot write to stdout: No space left on device\n"),
        (">&-", 125, "vmpool: cannot write to stdout: Bad file descriptor\n"),
        (">&$UNREAD", NOBODY_READS, ""),
    ],
)
async def test_output_that_cannot_be_written_ends_the_command_and_the_lease(
    served: Served, redirection: str, code: int, why: str
) -> None:
    done = await shell(served.path, f"vmpool run -- yes {redirection}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", why)
    await served.until(served.lost)


async def test_a_command_of_a_lease_that_is_kept_is_ended_too(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
    done = await shell(served.path, f"vmpool exec {vm.lease_id} -- yes >/dev/full")
    assert done.returncode == 125
    await served.until(lambda: not served.machine(vm.lease_id)._scopes)
    assert len(served.coordinator.leases()) == 1


@pytest.mark.parametrize(("status", "code"), [(0, NOBODY_READS), (3, 3)])
async def test_a_command_that_ends_well_though_nobody_read_it_has_not(
    service: ScriptedService, status: int, code: int
) -> None:
    """It cannot know; one that noticed has its own word for it."""
    replies = (
        wire.ExecReply(started=wire.ExecStarted()),
        wire.ExecReply(stdout=b"lost"),
        wire.ExecReply(exit=wire.ExecExit(status=status)),
    )
    service.answers["Exec"] = lambda _: Answer(replies)
    assert (await shell(service.path, "vmpool run -- true >&$UNREAD")).returncode == code


async def test_a_command_that_does_not_heed_sigpipe_is_ended(service: ScriptedService) -> None:
    """As programs in Python, which the guest's own stdout would tell, but a signal does not."""
    replies = (wire.ExecReply(started=wire.ExecStarted()), wire.ExecReply(stdout=b"lost"))
    service.answers["Exec"] = lambda _: Answer(replies, None)
    done = await shell(service.path, "vmpool exec lease-1 -- true >&$UNREAD")
    assert (done.returncode, done.stderr) == (NOBODY_READS, "")
    assert signal.SIGPIPE in [message.signal for message in await service.later("Exec")]
