"""Logs that a guest can write to stay short."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from vmm.logs import CHECK_INTERVAL_S, LogLimiter, read_tail


async def test_a_log_over_the_limit_is_emptied_and_its_writer_goes_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    long, short = tmp_path / "long", tmp_path / "short"
    short.write_text("short")
    limiter = LogLimiter([long, short, tmp_path / "absent"], max_bytes=100)
    with long.open("a") as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.run)
            print("x" * 200, file=writer, flush=True)
            await trio.sleep(CHECK_INTERVAL_S * 1.5)
            assert long.stat().st_size == 0
            print("next", file=writer, flush=True)
            await limiter.aclose()
    assert (long.read_text(), short.read_text()) == ("next\n", "short")


def test_a_tail_is_bounded_in_bytes_whatever_they_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_tail(log) == ""
    log.write_bytes(b"\xff" + "ü".encode() * 10)
    assert read_tail(log, limit=5) == "\\xbc" + "üü"


def test_a_tail_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """It is read while errors are told and processes ended, and must not come in between."""
    assert read_tail(tmp_path) == f"({tmp_path} cannot be read: Is a directory)"
