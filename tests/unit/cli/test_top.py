"""`vmpool top`: what it shows of a service with simulated VMs, and what its keys do."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from functools import partial
from pathlib import Path

import pytest
import trio

from pool.ledger.records import Owner
from pool.rpc import door
from pool.rpc.server import ServerSettings
from pool.settings.permissions import Caller
from tests.running import vmpool_argv
from tests.unit.cli.command import environment, vmpool
from tests.unit.cli.live import Live, live
from tests.unit.rpc.served import Served, serving

ME = Owner(uid=os.geteuid())
STRANGER = 4242
LEAVE_SCREEN = b"\x1b[?1049l"


async def test_an_acquire_is_shown_with_its_lease_and_how_long_it_took(served: Served) -> None:
    async def scenario(view: Live) -> None:
        await view.until_shown("vmpool 1.2.3", "default", "hand-outs: none seen yet")
        lease = await view.app._ask(lambda client: client.acquire(ttl_s=600))
        await view.until_shown(lease.vm_id, lease.lease_id[:14], f"uid {ME.uid}", "in 9 min", "granted", "100 %")
        await view.until_shown("last 1 hand-outs: p50")
        rows = [line for line in view.text().splitlines() if lease.vm_id in line and f"uid {ME.uid}" in line]
        assert ["leased" in row for row in rows] == [True, False]  # of the VM, and of the lease

    await live(served.path, scenario)


async def test_d_drains_the_profile_and_again_undrains_it(served: Served) -> None:
    async def scenario(view: Live) -> None:
        await view.until_shown("ok")
        await view.press("d")
        await view.until_shown("drained", "stopping")
        assert served.coordinator.views()[0].drained
        await view.until(lambda: view.board.profiles[0].drained)
        await view.press("d")
        await view.until_shown("undrained")
        await view.until(lambda: not view.board.profiles[0].drained)
        assert not served.coordinator.views()[0].drained

    await live(served.path, scenario)


async def test_e_evicts_the_vm_with_the_cursor(served: Served) -> None:
    first, second = (vm.vm_id for vm in served.coordinator.snapshot().vms)

    async def scenario(view: Live) -> None:
        await view.until_shown(first, second)
        await view.press("down", "e")
        await view.until_shown("its eviction was requested")
        await view.until(lambda: second not in view.board.vms and len(view.board.vms) == 2)
        assert first in served.host.alive
        assert second not in served.host.alive

    await live(served.path, scenario)


async def test_what_is_refused_is_told(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=ME)
    await served.until(lambda: len(served.host.alive) == 3)

    async def scenario(view: Live) -> None:
        await view.until_shown(lease.vm_id)
        await view.press(*(["up"] * 3))
        keys = list(view.board.vms)
        await view.press(*(["down"] * keys.index(lease.vm_id)), "e")
        await view.until_shown("evicted;", "release")

    await live(served.path, scenario)
    assert lease.vm_id in served.host.alive


async def test_c_shows_the_console_of_a_vm_and_gives_the_terminal_no_orders(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=ME)
    served.machine(lease.lease_id).console = b"booting\r\n[bold]no markup\x1b]0;owned\x07\r\nlast words\r\n"

    async def scenario(view: Live) -> None:
        await view.until_shown(lease.lease_id[:14])
        await view.press("tab", "c")  # of the lease that has the cursor, its VM's
        await view.until_shown(f"console of {lease.vm_id}", "booting", r"[bold]no markup\x1b]0;owned\x07", "last words")
        await view.press("escape")
        await view.until(lambda: "console of" not in view.text())

    await live(served.path, scenario)


async def test_a_user_who_may_do_nothing_is_told_so(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServerSettings(allowed_uids=frozenset({os.geteuid(), STRANGER}))
    async with serving(vm_home, settings=settings) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        monkeypatch.setattr(door, "caller_of", lambda _connection: Caller(uid=STRANGER, gid=STRANGER))

        async def scenario(view: Live) -> None:
            await view.until_shown("vmpool 1.2.3")
            await view.press("d")
            await view.until_shown(f"uid {STRANGER}")
            await view.press("c")
            await view.until_shown("not leased to you;")

        await live(served.path, scenario)
        assert not served.coordinator.views()[0].drained


async def test_it_outlives_a_restart_of_the_service(vm_home: Path) -> None:
    path = vm_home / "pool.sock"
    missed, first, gone, second = (trio.Event() for _ in range(4))

    async def scenario(view: Live) -> None:
        await view.until_shown("no connection to the service, trying again", "the socket does not exist")
        missed.set()
        await view.until_shown("vmpool 1.2.3", "default")
        first.set()
        await view.until_shown("no connection to the service, trying again")
        assert not view.board.vms
        gone.set()
        await view.until_shown("vmpool 1.2.3", "default")
        await view.until(lambda: len(view.board.vms) == 2)
        second.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, path, scenario)
        await missed.wait()
        async with serving(vm_home):
            await first.wait()
        path.unlink()
        await gone.wait()
        async with serving(vm_home):
            await second.wait()


async def test_once_prints_one_view_as_plain_text(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=ME)
    await served.until(lambda: served.coordinator.views()[0].ready == 2)
    done = await vmpool(served.path, "top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"vmpool 1.2.3, pid {os.getpid()}, running for ")
    assert lines[2].split()[:4] == ["profile", "size", "ready", "making"]
    assert lines[3].split() == ["default", "2", "2", "0", "1", "0", "100", "%", "closed", "ok"]
    (vm,) = [line.split() for line in lines if line.startswith(lease.vm_id)]
    assert (vm[1:3], vm[-2:]) == (["default", "leased"], ["uid", str(ME.uid)])
    assert lines[-1].startswith(f"{lease.lease_id}  {lease.vm_id}  default  uid {ME.uid}  ")
    assert lines[-1].split()[-2:] == ["never", "-"]


async def test_once_without_a_service_is_an_error(vm_home: Path) -> None:
    done = await vmpool(vm_home / "none.sock", "top", "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the socket does not exist" in done.stderr


async def test_without_a_terminal_it_says_what_to_do(served: Served) -> None:
    done = await vmpool(served.path, "top")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vmpool: the live view needs a terminal; `vmpool top --once` prints one view\n"


def test_without_its_library_it_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('no', name='textual')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom pool.cli.main import main\nmain()\n"
    status, output = trio.run(partial(at_terminal, ["-c", code, "top"], tmp_path / "none.sock", until=None))
    assert status == 2
    assert b"needs textual, which is not installed: `.venv/bin/pip install -e '.[top]'`" in output


@pytest.mark.parametrize(
    ("how", "status"),
    [("q", 0), ("\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
)
async def test_the_terminal_is_as_it_was_at_the_end(served: Served, how: str | signal.Signals, status: int) -> None:
    code, output = await at_terminal(vmpool_argv("top")[1:], served.path, until=b"default", then=how)
    assert code == status
    assert LEAVE_SCREEN in output


async def test_a_view_that_fails_says_so_by_its_exit_code_too(served: Served) -> None:
    code = (
        "from pool.cli.top import rows\n"
        "from pool.cli.main import main\n"
        "def vm_rows(*_, **__): raise RuntimeError('a bug')\n"
        "rows.vm_rows = vm_rows\n"
        "main()\n"
    )
    status, output = await at_terminal(["-c", code, "top"], served.path, until=None)
    assert status == 1
    assert b"a bug" in output
    assert LEAVE_SCREEN in output


@pytest.mark.parametrize("ignored", ["", "signal.signal(signal.SIGHUP, signal.SIG_IGN)"], ids=["", "as with nohup"])
async def test_it_ends_with_its_terminal(served: Served, ignored: str) -> None:
    code = f"import signal\n{ignored}\nfrom pool.cli.main import main\nmain()\n"
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "r+b", buffering=0):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", code, "top"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(served.path) | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
    output = b""
    with trio.fail_after(60):
        while b"default" not in output:
            await trio.lowlevel.wait_readable(controller)
            output += os.read(controller, 65536)
        os.close(controller)
        assert await process.wait() == 128 + signal.SIGHUP


async def at_terminal(
    arguments: list[str], socket_path: Path, *, until: bytes | None, then: str | signal.Signals = "q"
) -> tuple[int, bytes]:
    """Runs Python at a terminal of its own, and presses a key or sends a signal when something is shown. In the end the
    terminal must be as it was.
    """
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "r+b", buffering=0), os.fdopen(terminal, "r+b", buffering=0):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        before = termios.tcgetattr(terminal)
        os.set_blocking(controller, False)
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(socket_path) | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        output = b""
        asked = until is None
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    nonlocal output, asked
                    while True:
                        await trio.lowlevel.wait_readable(controller)
                        output += os.read(controller, 65536)
                        if not asked and until is not None and until in output:
                            asked = True
                            if isinstance(then, str):
                                os.write(controller, then.encode())
                            else:
                                process.send_signal(then)

                nursery.start_soon(read)
                status = await process.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
        assert asked, f"{until!r} was not shown"
        assert termios.tcgetattr(terminal) == before
    return 128 - status if status < 0 else status, output
