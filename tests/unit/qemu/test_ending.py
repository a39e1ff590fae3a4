"""The words for the end of a QEMU."""

from __future__ import annotations

import pytest

from vmm.qemu.ending import cause
from vmm.words.processes import ExitReport

FORBIDDEN = "it asked the kernel for something that its sandbox forbids"
PANIC = "[    8.1] Kernel panic - not syncing: System is deadlocked on memory\r\n[    8.2] CPU: 0 PID: 1"


@pytest.mark.parametrize(
    ("reason", "console", "said"),
    [
        ("guest-shutdown", PANIC, "its guest powered off"),
        ("guest-reset", "", "its guest was reset"),
        ("guest-reset", PANIC, "its guest ran out of memory, and its kernel panicked: System is deadlocked on memory"),
        ("guest-panic", "", "its guest's kernel panicked"),
        ("guest-reset", f"{PANIC}\nKernel panic - not syncing: \x1b[2J", "its guest's kernel panicked: ?[2J"),
        ("host-signal", "", "a signal on the host asked it to end"),
        ("host-qmp-quit", "", ""),
        ("something-new", "", ""),
        (None, PANIC, ""),
        (["no", "text"], "", ""),
    ],
)
def test_what_qemu_and_the_console_say(reason: object, console: str, said: str) -> None:
    assert cause({"guest": True, "reason": reason}, console=console) == said


def test_a_qemu_that_said_nothing_has_no_cause() -> None:
    assert cause(None, console=PANIC) == ""


def test_a_guest_that_talks_without_end_is_cut_short() -> None:
    assert len(cause({"reason": "guest-reset"}, console=f"Kernel panic - not syncing: {'x' * 10_000}")) < 300


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (ExitReport(status=0, cause="its guest powered off"), "its guest powered off (exit status 0)"),
        (ExitReport(signal=9), "killed by signal 9 (SIGKILL)"),
        (ExitReport(signal=35, stderr_tail="ouch"), "killed by signal 35; QEMU said: ouch"),
        (ExitReport(signal=31), f"killed by signal 31 (SIGSYS): {FORBIDDEN}"),
        (ExitReport(), "exit status unknown"),
    ],
)
def test_a_report_begins_with_the_cause(report: ExitReport, words: str) -> None:
    assert str(report) == words
