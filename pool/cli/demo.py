"""`vmpool demo`: one round of serving, acquiring, running and releasing, in a private directory, with timings."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import click
import trio
from rich.console import Console

from actors.errors import describe, evidence
from pool.cli.options import EXIT_INTERRUPTED, failure
from pool.cli.output import quoted, say
from pool.cli.program import command_line, own_program, way_onto_path
from pool.cli.table import cell, plain_table, print_table
from vmpool.client import AcquiredVm, Client, ClientError, ProfileStatus, open_client

_BOOT_LIMIT_S: Final = 180.0
_POLL_S: Final = 0.2
_COMMAND: Final = ("python3", "-c", "import platform; print(6*7, platform.release())")


class DemoError(Exception):
    """The service did not do what the demo shows. Its output is in the notes."""

    def __init__(self, what: str, *, said: str = "") -> None:
        super().__init__(what)
        if said:
            self.add_note(said)


@attrs.frozen(kw_only=True)
class _Outcome:
    profile: ProfileStatus
    vm: AcquiredVm
    output: str


@click.command()
def demo() -> None:
    """Start a service with the default configuration in a private directory, acquire a VM, run a command in it, release
    it, stop the service, and show the times. Leaves no files behind."""
    home = Path(tempfile.mkdtemp(prefix="vmpool-demo-"))
    try:
        outcome = trio.run(_show_until_signalled, home)
    except* (DemoError, ClientError, trio.TooSlowError) as errors:
        message, code = ":\n".join(filter(None, (describe(errors), evidence(errors)))), 1
    except* KeyboardInterrupt:
        message, code = "interrupted", EXIT_INTERRUPTED
    else:
        _print(outcome)
        _print_way_onto_path()
        return
    finally:
        shutil.rmtree(home)
    raise failure(message, code=code)


async def _show_until_signalled(home: Path) -> _Outcome:
    """Ends the service on SIGTERM and SIGHUP too, as on Ctrl-C."""
    outcome: _Outcome | None = None

    async def watch(received: AsyncIterator[int]) -> None:
        number = await anext(received)
        raise DemoError(f"ended by {signal.Signals(number).name}")

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, received)
            outcome = await _show(home)
            nursery.cancel_scope.cancel(reason="the demo is over")
    return outcome


async def _show(home: Path) -> _Outcome:
    console = Console(stderr=True)
    socket_path = home / "run" / "vmpool.sock"
    async with _service(home, socket_path), open_client(socket_path) as client:
        with console.status("booting the first VMs"), trio.fail_after(_BOOT_LIMIT_S):
            profile = await _wait_until_full(client)
        async with client.lease() as vm, client.exec(vm.lease_id, _COMMAND) as command:
            completed = await command.collect()
        if completed.exit.status != 0:
            raise DemoError(f"the command ended with {completed.exit}: {completed.stderr.decode(errors='replace')}")
    if (home / "run").exists():
        raise DemoError(f"the service left files behind: {sorted(path.name for path in (home / 'run').iterdir())}")
    return _Outcome(profile=profile, vm=vm, output=completed.stdout.decode().strip())


async def _wait_until_full(client: Client) -> ProfileStatus:
    while True:
        (profile,) = (await client.status()).profiles
        if profile.ready == profile.size:
            return profile
        if profile.failures_in_a_row >= 3:
            raise DemoError(f"VMs fail to boot: {profile.last_error}", said=profile.last_evidence)
        await trio.sleep(_POLL_S)


@asynccontextmanager
async def _service(home: Path, socket_path: Path) -> AsyncIterator[None]:
    """Runs a private service, from its readiness notice to its end."""
    log = home / "service.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, log.open("wb") as log_file:
        notices.bind(os.fspath(home / "notify"))
        process = await trio.lowlevel.open_process(
            command_line("serve", "--socket", os.fspath(socket_path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_file,
            start_new_session=True,  # so that Ctrl-C reaches only the demo, which then stops the service
            env=os.environ | {"NOTIFY_SOCKET": os.fspath(home / "notify")},
        )
        try:
            await _until_ready(trio.socket.from_stdlib_socket(notices), process, log)
            yield
        finally:
            with trio.CancelScope(shield=True):
                process.send_signal(signal.SIGTERM)
                await process.wait()
    if process.returncode != 0:
        raise DemoError(f"the service ended with exit code {process.returncode}", said=quoted(_text_of(log)))


async def _until_ready(notices: trio.socket.SocketType, process: trio.Process, log: Path) -> None:
    async def fail_at_its_end() -> None:
        await process.wait()
        raise DemoError("the service did not start", said=quoted(_text_of(log)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_at_its_end)
        while b"READY=1" not in await notices.recv(4096):
            pass
        nursery.cancel_scope.cancel(reason="the service is ready")


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="backslashreplace")


def _print(outcome: _Outcome) -> None:
    boot_s, hand_out_s = outcome.profile.last_production_s, outcome.vm.timings.total_s
    table = plain_table()
    answer, _, kernel = outcome.output.partition(" ")
    for what, value in (
        ("command in the VM", " ".join(_COMMAND)),
        ("output", answer),
        ("cold boot", f"{boot_s * 1000:.0f} ms"),
        ("hand-out (Acquire)", f"{hand_out_s * 1000:.1f} ms"),
        ("ratio", f"{boot_s / hand_out_s:.0f}"),
        ("guest kernel", kernel),
        ("accelerator", f"{outcome.profile.producer.accelerator}: {outcome.profile.producer.detail}"),
    ):
        table.add_row(cell(what), cell(value))
    print_table(table)


def _print_way_onto_path() -> None:
    program = own_program()
    if program is None:
        return
    search_path = os.environ.get("PATH", os.defpath)
    if (line := way_onto_path(program, search_path=search_path, home=Path.home(), uid=os.geteuid())) is not None:
        say(f"\nTo have `vmpool` on PATH:\n    {line}")
