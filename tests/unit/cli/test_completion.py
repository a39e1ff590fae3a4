"""Completion, by the shells that complete."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.cli.completion.line import parse_line, replacement
from pool.cli.completion.shells import script
from tests.running import vmpool_argv
from tests.terminals import AtTerminal, at_terminal
from tests.unit.cli.command import environment
from tests.unit.cli.scripted import Answer, ScriptedService
from tests.unit.rpc.served import Served
from vmpool import connect

CHECKOUT: Final = Path(__file__).parents[3]

_READY: Final = "#READY#"
_COMMANDS: Final = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "--interactive"),
}
_PREPARATIONS: Final = {
    "bash": "bind 'set enable-bracketed-paste off'",
    "zsh": "autoload -U compinit; compinit -D -u",
    "fish": "function fish_prompt; end",
}


@pytest.fixture(params=list(_COMMANDS))
def shell_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
async def shell(shell_name: str, service: ScriptedService, tmp_path: Path) -> AsyncIterator[AtTerminal]:
    """One that has the script, in a directory with a file `notes.txt`, before an empty line."""
    async with completing(shell_name, service.path, tmp_path) as terminal:
        yield terminal


@asynccontextmanager
async def completing(name: str, socket_path: Path, home: Path) -> AsyncIterator[AtTerminal]:
    program = home / "bin" / "vmpool"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec env PYTHONPATH={CHECKOUT} {shlex.join(vmpool_argv())} "$@"\n')
    program.chmod(0o755)
    (home / "notes.txt").touch()
    (home / f"script.{name}").write_text(script(name))
    variables = environment(socket_path) | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TERM": "dumb",
        "PS1": "",
        "EDITOR": "emacs",
        "XDG_CONFIG_HOME": str(home),
        "XDG_DATA_HOME": str(home),
    }
    async with at_terminal(_COMMANDS[name], environment=variables, columns=400) as terminal:
        await terminal.type(f"{_PREPARATIONS[name]}; cd {home}; source script.{name}; echo '#RE'ADY#\n")
        await terminal.until(_READY)
        yield terminal


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("vmpool rene", ["renew", "."]),
        ("vmpool run --stdin-f", ["run", "--stdin-first", "."]),
        ("vmpool exec lea", ["exec", "lease-1", "."]),
        ("vmpool exec 'lea", ["exec", "lease-1", "."]),
        ("vmpool run --on-empty=fa", ["run", "--on-empty=fail", "."]),
        ("vmpool run --on-empty fa", ["run", "--on-empty", "fail", "."]),
        ("vmpool serve --config no", ["serve", "--config", "notes.txt", "."]),
        ("vmpool image sh", ["image", "show", "."]),
        ("vmpool nothing", ["nothing."]),
    ],
)
async def test_a_word_is_completed(shell: AtTerminal, typed: str, words: list[str]) -> None:
    """A point behind it shows whether the word goes on. In front, a command that prints the words."""
    await shell.type(f"{typed}\t.\x01printf '<%s>' \n")
    await shell.until("".join(f"<{word}>" for word in ["vmpool", *words]))


async def answer(line: str, socket_path: Path) -> tuple[int, bytes, bytes]:
    """What bash gets for a line."""
    variables = {"_VMPOOL_COMPLETE": "bash_complete", "_VMPOOL_LINE": line, "_VMPOOL_BREAKS": " \t\n\"'@><=;|&(:"}
    done = await trio.run_process(
        vmpool_argv(), env=environment(socket_path) | variables, check=False, capture_stdout=True, capture_stderr=True
    )
    return done.returncode, done.stdout, done.stderr


async def test_a_service_that_is_not_there_has_nothing_to_offer(tmp_path: Path) -> None:
    assert await answer("vmpool release ", tmp_path / "no.sock") == (0, b"\n", b"")


async def test_a_service_that_does_not_answer_is_not_waited_for(service: ScriptedService) -> None:
    service.answers["ListLeases"] = lambda _: Answer((), None)
    assert await answer("vmpool release ", service.path) == (0, b"\n", b"")
    await service.given_up("ListLeases")


@pytest.mark.parametrize(
    ("text", "value", "put"),
    [
        ("vmpool cp lease-1:/et", "lease-1:/etc/", "/etc/"),
        ("vmpool cp lease-1:/a\\ b", "lease-1:/a b c", "/a\\ b\\ c"),
        ("vmpool cp 'lease-1:/a b", "lease-1:/a b c", "lease-1:/a b c"),
        ("vmpool cp lease-1:'/a b", "lease-1:/a b c", "/a b c"),
        ("vmpool run --on-empty=w", "--on-empty=wait", "wait"),
        ("vmpool exec ", "lease-1", "lease-1"),
    ],
)
def test_bash_is_given_what_it_takes_for_the_word(text: str, value: str, put: str) -> None:
    """It takes a word to begin behind a colon, an equals sign or a quotation mark."""
    assert replacement(value, parse_line(text), breaks=" \t\n\"'@><=;|&(:") == put


words = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1), min_size=1)


@given(words=words)
def test_a_line_is_split_as_the_shell_would(words: list[str]) -> None:
    line = parse_line(" ".join(shlex.quote(word) for word in words) + " ")
    assert (list(line.words), line.current, line.quote) == (words, "", "")
    line = parse_line(shlex.join(words))
    assert (list(line.words), line.current, line.quote) == (words[:-1], words[-1], "")


async def offered(served: Served, line: str) -> list[str]:
    code, said, complaints = await answer(line, served.path)
    assert (code, complaints) == (0, b"")
    return [words.partition("\t")[2] or words for words in said.decode().splitlines() if words]


async def test_what_runs_is_offered(served: Served) -> None:
    async with connect(served.path) as pool, pool.vm(name="work") as vm:
        await vm.files.write("/data/a file", "x")
        await vm.files.write("/data/deep/.hidden", "x")
        process = await vm.start(["sleep", "1000"])
        await vm.start(["sleep", "1000"], tag="idle")
        assert await offered(served, "vmpool ps ") == ["work", vm.lease_id]
        assert await offered(served, "vmpool shell ") == ["work", vm.lease_id, "default"]
        assert await offered(served, "vmpool run --profile ") == ["default"]
        assert await offered(served, f"vmpool console {vm.vm_id[:-1]}") == [vm.vm_id]
        assert await offered(served, "vmpool kill work ") == [str(process.process_id), "idle"]
        assert await offered(served, "vmpool cp wo") == ["work:", "file"]
        assert await offered(served, "vmpool cp work:") == ["/", "file"]
        assert await offered(served, "vmpool cp work:/dat") == ["/data/", "file"]
        assert await offered(served, "vmpool ls work:/data/") == ["/data/a\\ file", "/data/deep/"]
        assert await offered(served, "vmpool ls work /data/d") == ["/data/deep/"]
        assert await offered(served, "vmpool ls work:/data/deep/.") == ["/data/deep/.hidden"]
        assert await offered(served, "vmpool exec work -- cat /data/a") == ["/data/a\\ file"]
        assert await offered(served, "vmpool exec work -- cat -") == []
