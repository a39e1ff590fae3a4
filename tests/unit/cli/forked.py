"""Many runs of the command at the price of one start: a process that has imported all of it forks one for each."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import trio

import bench.__main__  # noqa: F401 - one command more
from pool.cli.main import main
from tests.unit.cli.command import Done, environment

_CHECKOUT: Final = Path(__file__).parents[3]
LIMIT_S = 240
CRASHED = 99
"""Exit code of a run that ended with an exception."""

Words = tuple[str, ...]


def commands(
    group: click.Command = main, *, path: Words = (), above: click.Context | None = None
) -> Iterator[tuple[Words, click.Command]]:
    """Every command that does something, by the words that call it."""
    context = click.Context(group, parent=above, info_name=group.name)
    if not isinstance(group, click.Group):
        yield path, group
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, path=(*path, name), above=context)


async def run_all(
    socket_path: Path, lines: Sequence[Words], *, variables: Mapping[str, str] | None = None, cwd: Path = _CHECKOUT
) -> dict[Words, Done]:
    """Runs `vmpool LINE` for each, one after the other; their words may be any bytes, as `os.fsdecode` has them."""
    with trio.fail_after(LIMIT_S):
        done = await trio.run_process(
            [sys.executable, "-W", "error", "-m", "tests.unit.cli.forked"],
            stdin=json.dumps(lines).encode(),
            capture_stdout=True,
            cwd=cwd,
            env=environment(socket_path) | {"PYTHONPATH": str(_CHECKOUT)} | dict(variables or {}),
        )
    return {line: Done(*said) for line, said in zip(lines, json.loads(done.stdout), strict=True)}


def _main() -> None:
    lines = json.load(sys.stdin)
    for _ in commands():
        pass  # imports them
    json.dump([_fork(line) for line in lines], sys.stdout)


def _fork(line: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        pid = os.fork()
        if pid == 0:
            _be(line, stdout, stderr)
        _, status = os.waitpid(pid, 0)
        stdout.seek(0)
        stderr.seek(0)
        return os.waitstatus_to_exitcode(status), stdout.read().decode(), stderr.read().decode()


def _be(line: list[str], stdout: Any, stderr: Any) -> None:
    """Never returns."""
    for ours, theirs in ((0, os.open(os.devnull, os.O_RDONLY)), (1, stdout.fileno()), (2, stderr.fileno())):
        os.dup2(theirs, ours)
    sys.argv = ["vmpool", *line]
    code = CRASHED
    try:
        main(prog_name="vmpool")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else CRASHED
    except BaseException:  # noqa: BLE001 - this is what is looked for
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main()
