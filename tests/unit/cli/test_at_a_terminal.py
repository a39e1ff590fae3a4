"""`shell`, `run -t` and `exec -t`: the terminal is the guest's, and comes back as it was however that ends."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.cli.escape import Escape, EscapeReader
from tests.running import vmpool_argv
from tests.terminals import AtTerminal, at_terminal
from tests.unit.cli.command import environment, vmpool
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire

READY = "the guest is here"
LEFT = 128 + signal.SIGHUP


@pytest.fixture
def guest(service: ScriptedService) -> ScriptedService:
    """Its command writes a line, and then takes what is typed."""
    replies = (wire.ExecReply(started=wire.ExecStarted()), wire.ExecReply(stdout=READY.encode()))
    service.answers["Exec"] = lambda _: Answer(replies, None)
    return service


def sitting(service: ScriptedService, *line: str) -> AbstractAsyncContextManager[AtTerminal]:
    variables = environment(service.path) | {"TERM": "vt220"}
    return at_terminal(vmpool_argv(*line), environment=variables, rows=30, columns=90)


LINES = [
    ("run", "-it", "--", "top"),
    ("exec", "-t", "lease-1", "--", "top"),
    ("shell",),
    ("shell", "lease-1"),
    ("shell", "small"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
async def test_every_key_is_the_guests(guest: ScriptedService, line: tuple[str, ...]) -> None:
    async with sitting(guest, *line) as terminal:
        await terminal.until(READY)
        assert terminal.is_raw()
        (start,) = await guest.called("Exec")
        assert start.start.terminal == wire.Terminal(rows=30, columns=90, term="vt220")
        for key in (b"a", b"\x03", b"\x1a", b"\x1c", b"\x04", b"\xff"):
            await terminal.type(key)
            assert (await guest.later("Exec"))[-1] == wire.ExecRequest(stdin=key)
            guest.more.clear()
        terminal.resize(rows=40, columns=100)
        assert (await guest.later("Exec"))[-1].resize == wire.Terminal(rows=40, columns=100)
        await terminal.type("\r~.")
        assert await terminal.ended() == LEFT
        assert not terminal.is_raw()
    await guest.given_up("Exec")


async def test_the_exit_code_is_the_commands(guest: ScriptedService) -> None:
    ended = wire.ExecReply(exit=wire.ExecExit(status=7))
    guest.answers["Exec"] = lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), ended))
    async with sitting(guest, "run", "-t", "--", "top") as terminal:
        assert await terminal.ended() == 7
        assert not terminal.is_raw()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
async def test_a_signal_ends_it_and_the_terminal_is_as_before(guest: ScriptedService, number: int) -> None:
    async with sitting(guest, "exec", "-t", "lease-1", "--", "top") as terminal:
        await terminal.until(READY)
        terminal.process.send_signal(number)
        assert await terminal.ended() == 128 + number
        assert not terminal.is_raw()
    await guest.given_up("Exec")


async def test_the_second_signal_ends_it_at_once_and_the_terminal_is_as_before(guest: ScriptedService) -> None:
    guest.answers["Release"] = lambda _: Answer((), None)
    async with sitting(guest, "run", "-t", "--", "top") as terminal:
        await terminal.until(READY)
        terminal.process.send_signal(signal.SIGTERM)
        await guest.called("Release")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.ended() == 128 + signal.SIGTERM
        assert not terminal.is_raw()


async def test_a_window_that_is_closed_ends_it(guest: ScriptedService) -> None:
    async with sitting(guest, "run", "-t", "--", "top") as terminal:
        await terminal.until(READY)
        terminal.hang_up()
        with trio.fail_after(60):
            assert await terminal.process.wait() == LEFT
    await guest.given_up("Exec")
    await guest.called("Release")


async def test_a_service_that_ends_leaves_the_terminal_as_it_was(guest: ScriptedService) -> None:
    async with sitting(guest, "exec", "-t", "lease-1", "--", "top") as terminal:
        await terminal.until(READY)
        await guest.kill()
        assert await terminal.ended() == 125
        assert not terminal.is_raw()


@pytest.mark.parametrize("how", ["escape", "signal"])
async def test_it_is_suspended_as_a_job_and_goes_on(guest: ScriptedService, how: str) -> None:
    """By the escape, or by SIGTSTP from elsewhere. The shell has its terminal meanwhile."""
    line = " ".join(vmpool_argv("exec", "-t", "lease-1", "--", "top"))
    variables = environment(guest.path) | {"PS1": "$ ", "TERM": "vt220"}
    async with at_terminal(["bash", "--norc", "--noprofile"], environment=variables) as terminal:
        await terminal.type(f"{line}\n")
        await terminal.until(READY)
        assert terminal.is_raw()
        if how == "escape":
            await terminal.type("\r~\x1a")
        else:
            await trio.run_process(["pkill", "-TSTP", "-P", str(terminal.process.pid)])
        await terminal.until(r"Stopped.*\$ ")
        guest.more.clear()
        await terminal.type("echo still-$((1+1))-here\n")
        await terminal.until("still-2-here")
        terminal.resize(rows=50, columns=120)
        await terminal.type("fg\n")
        await told(guest, wire.ExecRequest(resize=wire.Terminal(rows=50, columns=120)))
        assert terminal.is_raw()
        await terminal.type("x")
        await told(guest, wire.ExecRequest(stdin=b"x"))
        await terminal.type("\r~.")
        await terminal.until(r"\$ ")


async def told(guest: ScriptedService, request: wire.ExecRequest) -> None:
    """Waits until the guest's command has been told this."""
    times = 1
    while request not in await guest.later("Exec", times):
        times += 1


async def test_without_a_terminal_the_command_gets_one_all_the_same(guest: ScriptedService) -> None:
    ended = wire.ExecReply(exit=wire.ExecExit(status=0))
    guest.answers["Exec"] = lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), ended))
    done = await vmpool(guest.path, "exec", "-t", "lease-1", "--", "ls")
    assert done.returncode == 0
    (start,) = await guest.called("Exec")
    assert (start.start.terminal.rows, start.start.terminal.columns) == (24, 80)


async def test_a_new_vm_is_not_wanted_of_one_that_is_leased(guest: ScriptedService) -> None:
    done = await vmpool(guest.path, "shell", "lease-1", "--cpus", "2")
    assert done.returncode == 2
    assert "'lease-1' is leased already; options of a new VM have no effect on it." in done.stderr


# -- the escape ------------------------------------------------------------------------------------------------------


def read(*pieces: bytes) -> list[bytes | Escape]:
    reader = EscapeReader()
    return [part for piece in pieces for part in reader.feed(piece)]


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        ((b"~.",), [Escape.LEAVE]),
        ((b"~", b"."), [Escape.LEAVE]),
        ((b"ls\r~.",), [b"ls\r", Escape.LEAVE]),
        ((b"ls~.",), [b"ls~."]),
        ((b"~~.",), [b"~."]),
        ((b"~~",), [b"~"]),
        ((b"~x",), [b"~x"]),
        ((b"~", b"\r~", b"."), [b"~\r", Escape.LEAVE]),
        ((b"~\x1ax",), [Escape.SUSPEND, b"x"]),
        ((b"\n~\x1a~.",), [b"\n", Escape.SUSPEND, Escape.LEAVE]),
        ((b"~",), []),
    ],
)
def test_a_tilde_at_the_beginning_of_a_line(pieces: tuple[bytes, ...], parts: list[bytes | Escape]) -> None:
    assert read(*pieces) == parts


@given(st.lists(st.binary(min_size=1)))
def test_keys_without_a_tilde_are_passed_on_as_they_are(pieces: list[bytes]) -> None:
    plain = [piece.replace(b"~", b"-") for piece in pieces]
    assert read(*plain) == plain


@given(st.lists(st.sampled_from([b"~", b".", b"\r", b"a", b"\x1a"])))
def test_it_does_not_matter_how_keys_are_cut(keys: list[bytes]) -> None:
    assert _joined(read(*keys)) == _joined(read(b"".join(keys)))


def _joined(parts: Iterable[bytes | Escape]) -> list[bytes | Escape]:
    joined: list[bytes | Escape] = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined
