"""Where the guest's command begins: behind `--`. What is wrong in front of it is told before a VM is taken."""

from __future__ import annotations

import pytest

from tests.unit.cli.forked import Words, run_all
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire

REFUSED: list[tuple[Words, str]] = [
    (("run", "--timelimit", "5", "--", "true"), "No such option '--timelimit'. Did you mean '--time-limit'?"),
    (("run", "--timelimit", "5", "true"), "No such option '--timelimit'. Did you mean '--time-limit'?"),
    (("run", "--no-such-thing", "--", "true"), "No such option '--no-such-thing'."),
    (("run", "-x", "--", "true"), "No such option '-x'."),
    (
        ("exec", "--timelimit", "5", "lease-1", "--", "true"),
        "No such option '--timelimit'. Did you mean '--time-limit'?",
    ),
    (
        ("exec", "lease-1", "--timelimit", "5", "--", "true"),
        "No such option '--timelimit'. Did you mean '--time-limit'?",
    ),
    (("run", "true"), "The guest's command goes after `--`: `vmpool run -- true`."),
    (("run", "ls", "-l", "a b"), "The guest's command goes after `--`: `vmpool run -- ls -l 'a b'`."),
    (("run", "--cpus", "2", "true"), "The guest's command goes after `--`: `vmpool run -- true`."),
    (("exec", "lease-1", "ls", "-l"), "The guest's command goes after `--`: `vmpool exec lease-1 -- ls -l`."),
    (
        ("run", "5", "--", "true"),
        "'5' is not an option; the guest's command goes after `--`.",
    ),
    (("exec", "lease-1", "lease-2", "--", "true"), "'lease-2' is not an option"),
    (("exec", "--", "echo", "hello"), "Missing argument 'LEASE_ID'."),
    (("exec", "", "--", "echo", "hello"), "Invalid value for 'LEASE_ID': must not be empty."),
    (("run",), "Missing argument '-- CMD...'."),
    (("run", "--"), "Missing argument '-- CMD...'."),
    (("exec", "lease-1"), "Missing argument '-- CMD...'."),
    (("exec", "lease-1", "--"), "Missing argument '-- CMD...'."),
    (("exec",), "Missing argument 'LEASE_ID'."),
    (("run", "--workdir", "--", "true"), "Option '--workdir' requires an argument."),
    (("run", "-e", "--", "true"), "Option '-e' requires an argument."),
    (("run", "--socket", "--", "true"), "Option '--socket' requires an argument."),
]


async def test_what_is_wrong_is_told_before_a_vm_is_taken(service: ScriptedService) -> None:
    done = await run_all(service.path, [words for words, _ in REFUSED])
    for words, message in REFUSED:
        assert done[words].returncode == 2, words
        assert f"Error: {message}" in done[words].stderr, words
    assert service.calls == []


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        (("run", "--", "true"), ["true"]),
        (("run", "--time-limit", "5", "--", "ls", "--time-limit", "9", "-x"), ["ls", "--time-limit", "9", "-x"]),
        (("run", "--", "--help"), ["--help"]),
        (("run", "--", "--", "-h"), ["--", "-h"]),
        (("run", "--", "sh", "-c", "a", "--", "b"), ["sh", "-c", "a", "--", "b"]),
        (("exec", "lease-1", "--time-limit", "5", "--", "true"), ["true"]),
        (("exec", "--time-limit", "5", "lease-1", "--", "true"), ["true"]),
    ],
    ids=" ".join,
)
async def test_all_behind_the_dashes_is_the_guests(service: ScriptedService, line: Words, argv: list[str]) -> None:
    started, ended = wire.ExecReply(started=wire.ExecStarted()), wire.ExecReply(exit=wire.ExecExit(status=0))
    service.answers["Exec"] = lambda _: Answer((started, ended))
    done = await run_all(service.path, [line])
    assert done[line].returncode == 0, done[line].stderr
    ((start,),) = [await service.called("Exec")]
    assert start.start.argv == argv
    assert start.start.lease_id == "lease-1"
    assert start.start.time_limit_ms == (5000 if "--time-limit" in line[: line.index("--")] else 0)


async def test_help_is_given_in_front_of_the_dashes(service: ScriptedService) -> None:
    done = await run_all(service.path, [("run", "--help"), ("exec", "-h"), ("run", "--help", "--", "true")])
    for each in done.values():
        assert each.returncode == 0
        assert each.stdout.startswith("Usage: ")
        assert " -- CMD...\n" in each.stdout


OTHERS: list[tuple[Words, str]] = [
    (("acquire", "--onempty", "fail"), "No such option '--onempty'. Did you mean '--on-empty'?"),
    (("acquire", "small"), "Got unexpected extra argument (small)"),
    (("acquire", "--profile"), "Option '--profile' requires an argument."),
    (("release",), "Missing argument 'LEASE_ID...'."),
    (("renew", "lease-1"), "Missing option '--ttl'."),
    (("status", "small"), "Got unexpected extra argument (small)"),
    (("drain",), "Missing argument 'PROFILE'."),
    (("resize", "small"), "Missing argument 'SIZE'."),
    (("resize", "3"), "Missing argument 'SIZE'."),
    (("evict", "vm-1", "vm-2"), "Got unexpected extra argument (vm-2)"),
    (("evict", "", "--profile", "small"), "Invalid value for '[VM_ID]': must not be empty."),
    (("serve", "config.toml"), "Got unexpected extra argument (config.toml)"),
    (("bogus",), "No such command 'bogus'."),
    (("factory", "bogus"), "No such command 'bogus'."),
    (("image", "build", "--agnt", "qga"), "No such option '--agnt'. Did you mean '--agent'?"),
]


async def test_other_commands_swallow_no_word_either(service: ScriptedService) -> None:
    done = await run_all(service.path, [words for words, _ in OTHERS])
    for words, message in OTHERS:
        assert (done[words].returncode, done[words].stdout) == (2, ""), words
        assert f"Error: {message}" in done[words].stderr, words
    assert service.calls == []
