"""What a VM was doing when its test failed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Final

from vmpool.client.errors import ClientError
from vmpool.client.records import ProcessInfo
from vmpool.sync import Pool, Vm

CONSOLE_LINES: Final = 50


def evidence_of(pool: Pool, lease_id: str) -> list[tuple[str, str]]:
    """Headings and texts for a report. What cannot be had is said in its place."""
    return [
        (f"end of the console, {lease_id}", _or_why_not(lambda: _console(pool.get(lease_id)))),
        (f"processes, {lease_id}", _or_why_not(lambda: _processes(pool.get(lease_id)))),
    ]


def _or_why_not(text: Callable[[], str]) -> str:
    try:
        return text()
    except ClientError as error:
        return f"not available: {error}"


def _console(vm: Vm) -> str:
    return "\n".join(printable(vm.console()).splitlines()[-CONSOLE_LINES:]) or "empty"


def _processes(vm: Vm) -> str:
    return "\n".join(map(line_of, vm.processes())) or "none"


def line_of(process: ProcessInfo) -> str:
    """A process in one line."""
    tag = f" {process.tag}" if process.tag else ""
    state = "runs" if process.exit is None else process.exit.describe()
    return printable(f"{process.process_id}{tag}: {shlex.join(process.argv)}: {state}", keep="")


def printable(text: str, *, keep: str = "\n\t") -> str:
    """A guest's text, fit for a terminal: characters that control it are escaped, but for those to `keep`."""
    return "".join(map(_escaped_unless(keep), text.replace("\r\n", "\n")))


def _escaped_unless(keep: str) -> Callable[[str], str]:
    def escaped(character: str) -> str:
        if character.isprintable() or character in keep:
            return character
        number = ord(character)
        return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"

    return escaped
