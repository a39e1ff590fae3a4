"""Words that no command can make sense of, for each parameter of each command: a sentence that names it, and no more.

A new option is covered by itself; one that may be anything is a path of this host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from pool.cli.words import Text
from tests.unit.cli.command import Done
from tests.unit.cli.forked import CRASHED, Words, commands, run_all
from tests.unit.cli.scripted import Answer, ScriptedService, acquired
from vmpool.wire.generated.vmpool import v1 as wire

ODD = "odd-\udcff"
"""What Python makes of b"odd-\\xff"."""
SHOWN = r"odd-\udcff"

HARMLESS: dict[Words, Words] = {("bench",): ("--list",)}
"""With these a command does little, whatever else it is told."""


def parameters() -> Iterator[tuple[Words, click.Command, click.Parameter]]:
    for path, command in commands():
        for parameter in command.params:
            if not (isinstance(parameter, click.Option) and parameter.is_flag):
                yield path, command, parameter


def line(path: Words, command: click.Command, parameter: click.Parameter, word: str) -> Words:
    """The shortest line that has this word for this parameter, and is else right."""
    options: list[str] = []
    arguments: list[str] = []
    for each in command.params:
        value = word if each is parameter else right(each)
        if isinstance(each, click.Option) and (each is parameter or each.required):
            options += [each.opts[0], value]
        elif isinstance(each, click.Argument) and each.name == "argv":
            arguments += ["--", value]
        elif isinstance(each, click.Argument) and (each is parameter or each.required):
            arguments.append(value)
    return (*path, *HARMLESS.get(path, ()), *options, *arguments)


def right(parameter: click.Parameter) -> str:
    """A word that makes sense."""
    if isinstance(parameter.type, click.IntRange | click.FloatRange) or parameter.type.name in ("port", "route"):
        return "3"
    return "lease-1:/x" if parameter.name == "source" else "x"


def lines(word: Callable[[click.Parameter], str | None]) -> dict[Words, click.Parameter]:
    return {
        line(path, command, parameter, chosen): parameter
        for path, command, parameter in parameters()
        if (chosen := word(parameter)) is not None
    }


def is_host_path(parameter: click.Parameter) -> bool:
    return isinstance(parameter.type, click.Path)


def is_path(parameter: click.Parameter) -> bool:
    """Which may be any bytes."""
    return is_host_path(parameter) or (isinstance(parameter.type, Text) and parameter.type.any_bytes)


def refused(done: Done, parameter: click.Parameter) -> bool:
    hint = parameter.get_error_hint(click.Context(click.Command("any")))
    return done.returncode == 2 and f"Error: Invalid value for {hint}: " in done.stderr


@pytest.fixture
def generous(service: ScriptedService) -> ScriptedService:
    """A service that does what it is told, should it be."""
    done = wire.ExecReply(exit=wire.ExecExit(status=0))
    service.answers |= {
        "Acquire": lambda _: Answer((acquired(),)),
        "Exec": lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), done)),
    }
    return service


async def test_one_that_is_not_utf8_is_refused_or_used_as_it_is(generous: ScriptedService, tmp_path: Path) -> None:
    """As a path it leads nowhere, here, so that nothing is begun with it."""
    (tmp_path / "file").touch()
    relative = f"lease-1:{ODD}"
    asked = lines(
        lambda parameter: (
            ODD if not is_path(parameter) else f"{tmp_path}/file/{ODD}" if is_host_path(parameter) else relative
        )
    )
    assert len(asked) > 60
    wrong = []
    for words, done in (await run_all(generous.path, list(asked))).items():
        parameter = asked[words]
        fine = done.returncode in (0, 1, 2, 125) if is_path(parameter) else refused(done, parameter)
        if not fine or "Traceback" in done.stderr:
            wrong.append((words, done))
    assert wrong == []
    assert generous.calls == []


async def test_one_that_is_empty_is_refused(generous: ScriptedService) -> None:
    """A variable that is not set, most likely; of some an empty one means something."""
    asked = lines(lambda parameter: "" if parameter.name not in ("argv", "kernel_parameters") else None)
    wrong = []
    for words, done in (await run_all(generous.path, list(asked))).items():
        if not refused(done, asked[words]) or "Traceback" in done.stderr:
            wrong.append((words, done))
    assert wrong == []
    assert generous.calls == []


async def test_a_number_that_is_too_large_is_refused(generous: ScriptedService) -> None:
    numeric = click.IntRange | click.FloatRange
    asked = lines(lambda parameter: "9" * 30 if isinstance(parameter.type, numeric) else None)
    done = await run_all(generous.path, list(asked))
    assert [words for words in asked if not refused(done[words], asked[words]) and words[0] != "bench"] == []
    assert [words for words in asked if done[words].returncode == CRASHED] == []
    assert generous.calls == []


async def test_a_guests_command_may_have_empty_words(generous: ScriptedService) -> None:
    done = await run_all(generous.path, [("run", "-e", "NAME=", "--append", "", "--", "sh", "-c", "")])
    assert [each.returncode for each in done.values()] == [0]
    (start,) = await generous.called("Exec")
    assert start.start.argv == ["sh", "-c", ""]
    assert start.start.environment == {"NAME": ""}


async def test_a_kernel_in_a_directory_whose_name_is_not_utf8_is_refused_with_its_whole_path(
    generous: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / ODD).mkdir()
    (tmp_path / ODD / "k").touch()
    asked = [("acquire", "--kernel", "k"), ("acquire", "--initrd", "k")]
    for words, done in (await run_all(generous.path, asked, cwd=tmp_path / ODD)).items():
        assert done.returncode == 2
        assert f"'{tmp_path}/{SHOWN}/k' is not UTF-8" in done.stderr, words


# -- what is named elsewhere ---------------------------------------------------------------------------------------


async def test_a_socket_may_have_any_name(vm_home: Path, generous: ScriptedService) -> None:
    odd = vm_home / ODD
    odd.symlink_to(generous.path)
    by_option = [("acquire", "--socket", str(odd)), ("run", "--socket", str(odd), "--", "true")]
    done = await run_all(vm_home / "none", by_option)
    done |= await run_all(odd, [("acquire",), ("status", "--json")])
    assert [each.returncode for each in done.values()] == [0] * 4
    odd.unlink()
    for each in (await run_all(odd, [("acquire",), ("status",)])).values():
        assert each.returncode == 1
        assert f"{vm_home}/{SHOWN}: the socket does not exist" in each.stderr


async def test_variables_that_are_not_utf8_make_no_traceback(vm_home: Path) -> None:
    asked = [("doctor",), ("doctor", "--json"), ("image", "show"), ("status",)]
    named = ("VMPOOL_IMAGE_DIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HOME", "TMPDIR")
    done = await run_all(vm_home / "none", asked, variables=dict.fromkeys(named, f"{vm_home}/{ODD}"))
    assert [words for words in asked if done[words].returncode not in (1, 2)] == []
    assert [words for words in asked if "Traceback" in done[words].stderr] == []


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
async def test_a_name_that_stdout_cannot_encode_is_written_out(
    generous: ScriptedService, vm_home: Path, encoding: str
) -> None:
    profile = wire.ProfileStatus(
        name="default", producer=wire.ProducerStatus(), counters=wire.PoolCounters(), last_error="naïve"
    )
    generous.answers |= {
        "Status": lambda _: Answer((wire.StatusReply(profiles=[profile]),)),
        "Watch": lambda _: Answer((wire.WatchReply(snapshot=wire.Snapshot(profiles=[profile])),)),
    }
    variables = {"PYTHONIOENCODING": encoding, "VMPOOL_IMAGE_DIR": f"{vm_home}/{ODD}", "LC_ALL": "C"}
    done = await run_all(generous.path, [("status",), ("watch",), ("doctor",)], variables=variables)
    assert "default: last error: na" in done["status",].stdout
    assert "default: last error: na" in done["watch",].stdout
    assert "".join(done["doctor",].stdout.split()).count(SHOWN) > 0
    assert [each.returncode for each in done.values()] == [0, 1, 1]


async def test_a_file_that_is_not_utf8_is_named(vm_home: Path) -> None:
    text = vm_home / f"{ODD}.toml"
    text.write_bytes(b'[profiles.default]\nkernel_parameters = "\xff"\n')
    asked = [
        ("serve", "--config", str(text)),
        ("serve", "--kata-config", str(text)),
        ("doctor", "--config", str(text)),
        ("bench", "--compare", str(text)),
        *(("factory", each, "--kata-config", str(text)) for each in ("init", "status", "destroy")),
    ]
    for words, done in (await run_all(vm_home / "none", asked)).items():
        assert done.returncode in (1, 2), words
        assert "Traceback" not in done.stderr, words
        assert f"{SHOWN}.toml" in done.stderr, words
    text.unlink()


async def test_markup_in_a_name_is_no_markup(vm_home: Path) -> None:
    done = await run_all(vm_home / "none", [("doctor",)], variables={"VMPOOL_IMAGE_DIR": f"{vm_home}/[/bold]"})
    assert "/[/bold]" in "".join(done["doctor",].stdout.split())


async def test_a_variable_without_a_value_has_that_of_the_environment(generous: ScriptedService) -> None:
    """So that a secret stands on no command line."""
    words = ("exec", "-e", "TOKEN", "lease-1", "--", "true")
    done = await run_all(generous.path, [words], variables={"TOKEN": "secret"})
    assert done[words].returncode == 0, done[words].stderr
    [start] = [message.start for method, message in generous.calls if method == "Exec"]
    assert start is not None
    assert start.environment == {"TOKEN": "secret"}


async def test_a_variable_that_is_not_there_is_asked_for(generous: ScriptedService) -> None:
    words = ("exec", "-e", "TOKEN_OF_NOBODY", "lease-1", "--", "true")
    done = (await run_all(generous.path, [words]))[words]
    assert done.returncode == 2
    assert "set it, or write TOKEN_OF_NOBODY=VALUE" in done.stderr
