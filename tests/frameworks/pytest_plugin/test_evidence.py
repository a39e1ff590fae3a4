"""What a report says of a guest is fit for a terminal, whatever the guest says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vmpool.client.records import CommandExit, ProcessInfo
from vmpool.frameworks.pytest_plugin.evidence import line_of, printable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[    0.1] Linux\r\n\tgrün\n", "[    0.1] Linux\n\tgrün\n"),
        ("\x1b[2Jgone\x07\r", "\\x1b[2Jgone\\x07\\x0d"),
        ("\u202etxt", "\\u202etxt"),
    ],
)
def test_control_characters_are_escaped(said: str, shown: str) -> None:
    assert printable(said) == shown


@given(st.text())
@examples(200)
def test_nothing_else_reaches_the_terminal(said: str) -> None:
    assert all(character.isprintable() or character in "\n\t" for character in printable(said))


def process(**changes: object) -> ProcessInfo:
    usual = {
        "process_id": 3,
        "pid": 40,
        "tag": "",
        "argv": ("sh", "-c", "sleep 1;\nid"),
        "working_directory": "/",
        "user": "",
        "terminal": False,
        "attached": False,
        "started_at": 0.0,
        "exit": None,
        "stdout_end": 0,
        "stdout_kept_from": 0,
        "stderr_end": 0,
        "stderr_kept_from": 0,
    }
    return ProcessInfo(**usual | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (process(), "3: sh -c 'sleep 1;\\x0aid': runs"),
        (process(tag="server", argv=("id",)), "3 server: id: runs"),
        (process(argv=("id",), exit=CommandExit(status=2)), "3: id: ended with status 2"),
    ],
)
def test_a_process_is_one_line(shown: ProcessInfo, line: str) -> None:
    assert line_of(shown) == line
