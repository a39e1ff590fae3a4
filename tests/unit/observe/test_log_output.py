"""Nobody waits for whoever reads the log, and nothing of it is lost in silence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from pool.observe import log_output
from pool.observe.log_output import MAX_PENDING_BYTES, LogOutput
from tests.leaks import nothing_left

LINE = "x" * 99 + "\n"
MANY = 10_000
"""Lines: more than any kernel buffer and what may be pending hold together."""


@contextmanager
def a_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield from _both(reader, writer)


@contextmanager
def a_terminal() -> Iterator[tuple[int, int]]:
    reader, writer = pty.openpty()
    yield from _both(reader, writer)


@contextmanager
def a_socket() -> Iterator[tuple[int, int]]:
    reader, writer = socket.socketpair()
    yield from _both(reader.detach(), writer.detach())


def _both(reader: int, writer: int) -> Iterator[tuple[int, int]]:
    yield reader, writer
    os.close(reader)
    with contextlib.suppress(OSError):
        os.close(writer)


Kind = Callable[[], AbstractContextManager[tuple[int, int]]]
kinds = pytest.mark.parametrize("kind", [a_pipe, a_terminal, a_socket], ids=lambda kind: kind.__name__)


@contextmanager
def opened(writer: int) -> Iterator[LogOutput]:
    output = LogOutput(writer, tell=lambda lines: f"({lines} dropped)\n")
    yield output
    output.close()


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    with nothing_left():
        yield


def read_all(reader: int, *, until: Callable[[bytes], bool], drain: Callable[[], object]) -> list[str]:
    data = b""
    while not until(data):
        data += os.read(reader, 1 << 20)
        drain()
    return data.decode().replace("\r\n", "\n").split("\n")


@kinds
def test_a_reader_that_does_not_read_holds_nobody_up_and_hears_how_much_is_missing(kind: Kind) -> None:
    with kind() as (reader, writer), opened(writer) as output:
        for _ in range(MANY):
            output.write(LINE)
        assert 0 < output.dropped < MANY
        dropped = output.dropped
        kept = (MANY - dropped) * len(LINE)
        lines = read_all(reader, until=lambda data: data.count(b"x") >= kept // len(LINE) * 99, drain=output.flush)
        assert lines == [LINE.rstrip()] * (MANY - dropped) + [""]
        output.write("back\n")
        after = read_all(reader, until=lambda data: b"back" in data, drain=output.flush)
        assert after == [f"({dropped} dropped)", "back", ""]
        assert output.dropped == 0


@kinds
def test_the_mode_of_what_others_share_is_left_alone(kind: Kind) -> None:
    with kind() as (_, writer), opened(writer) as output:
        output.write(LINE)
        assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_pipe_that_may_not_be_opened_again_holds_nobody_up_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise PermissionError

    monkeypatch.setattr(log_output, "_Reopened", refuse)
    with a_pipe() as (reader, writer), opened(writer) as output:
        for _ in range(MANY):
            output.write(LINE)
        assert output.dropped > 0
        kept = MANY - output.dropped
        lines = read_all(reader, until=lambda data: data.count(b"x") >= kept * 99, drain=output.flush)
    assert lines == [LINE.rstrip()] * kept + [""]


def test_a_long_line_is_kept_whole() -> None:
    with a_pipe() as (reader, writer), opened(writer) as output:
        long = "y" * (2 * MAX_PENDING_BYTES)
        output.write(f"{long}\n")
        lines = read_all(reader, until=lambda data: data.endswith(b"\n"), drain=output.flush)
    assert lines == [long, ""]


@kinds
def test_a_reader_that_has_gone_is_no_error(kind: Kind) -> None:
    with kind() as (reader, writer), opened(writer) as output:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, reader)
        os.close(nothing)
        output.write(LINE)
        output.flush()


def test_a_descriptor_that_is_closed_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with opened(writer) as output:
        output.write(LINE)


def test_a_full_disk_is_no_error() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        assert stat.S_ISCHR(os.fstat(descriptor).st_mode)
        with opened(descriptor) as output:
            output.write(LINE)
    finally:
        os.close(descriptor)
