"""Where the guest's command begins: behind `--`. What is wrong in front of it is told before a VM is taken."""

from __future__ import annotations

import pytest

from tests.unit.cli.forked import Words, run_all
from tests.unit.cli.scripted import Answer, ScriptedService
from vmpool.wire.generated.vmpool import v1 as wire

REFUSED: list[tuple[Words, str]] = [
    (
        ("run", "--timelimit", "5", "--", "true"),
        "No such option '--timelimit'. (Did you mean one of: '--limit', '--time-limit'?)",
    ),
    (
        ("run", "--timelimit", "5", "true"),
        "No such option '--timelimit'. (Did you mean one of: '--limit', '--time-limit'?)",
    ),
    (("run", "--no-such-thing", "--", "true"), "No such option '--no-such-thing'."),
    (("run", "-x", "--", "true"), "No such option '-x'."),
    (
        ("exec", "--timelimit", "5", "lease-1", "--", "true"),
        "No such option '--timelimit'. (Did you mean one of: '--limit', '--time-limit'?)",
    ),
    (
        ("exec", "lease-1", "--timelimit", "5", "--", "true"),
        "No such option '--timelimit'. (Did you mean one of: '--limit', '--time-limit'?)",
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
    (("exec", "--", "echo", "hello"), "Missing argument 'LEASE'."),
    (("exec", "", "--", "echo", "hello"), "Invalid value for 'LEASE': must not be empty."),
    (("run",), "Missing argument '-- CMD...'."),
    (("run", "--"), "Missing argument '-- CMD...'."),
    (("exec", "lease-1"), "Missing argument '-- CMD...'."),
    (("exec", "lease-1", "--"), "Missing argument '-- CMD...'."),
    (("exec",), "Missing argument 'LEASE'."),
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
    (("release",), "Missing argument 'LEASE...'."),
    (("renew", "lease-1"), "Missing option '--ttl'."),
    (("status", "small"), "Got unexpected extra argument (small)"),
    (("drain",), "Missing argument 'PROFILE'."),
    (("resize", "small"), "Missing argument 'SIZE'."),
    (("resize", "3"), "Missing argument 'SIZE'."),
    (("evict", "vm-1", "vm-2"), "Got unexpected extra argument (vm-2)"),
    (("evict", "", "--profile", "small"), "Invalid value for '[VM_ID]': must not be empty."),
    (("serve", "config.toml"), "Got unexpected extra argument (config.toml)"),
    (("bogus",), "No such command 'bogus'."),
    (("rm", "lease-1"), "No such command 'rm'; `vmpool release` does that."),
    (("releases", "lease-1"), "No such command 'releases'. (Did you mean one of: 'leases', 'release', 'reset'?)"),
    (("factory", "bogus"), "No such command 'bogus'."),
    (("kill", "lease-1"), "Missing argument 'PROCESS'."),
    (("ps",), "Missing argument 'LEASE'."),
    (
        ("kill", "-s", "STOPX", "lease-1", "7"),
        "Invalid value for '--signal' / '-s': 'STOPX' is no signal; TERM and 15 are, for example.",
    ),
    (("cp", "a", "b"), "One of SRC and DST must be LEASE:PATH, such as LEASE:/app/."),
    (("cp", "-", "-"), "One of SRC and DST must be LEASE:PATH, such as LEASE:/app/."),
    (("cp", "a", "lease-1:b"), "a path in a guest is absolute: lease-1:/b."),
    (("cp", "lease-1:/a", "lease-1:/b"), "Both are in the guest: use `vmpool exec lease-1 -- cp -r /a /b`."),
    (("cp", "lease-1:/a", "lease-2:/b"), "Only one of SRC and DST may be LEASE:PATH; copy to this host first."),
    (("ls", "lease-1:etc"), "a path in a guest is absolute: lease-1:/etc."),
    (("ls", "lease-1", "etc"), "a path in a guest is absolute: lease-1:/etc."),
    (("ls", "lease-1:/etc", "/etc"), "Name the path once."),
    (
        ("forward", "lease-1", "http"),
        "Invalid value for '[[HOST:]LOCAL:]REMOTE...': 'http' is not [[HOST:]LOCAL:]REMOTE, where",
    ),
    (("forward", "lease-1"), "Missing argument '[[HOST:]LOCAL:]REMOTE...'."),
    (
        ("wait-port", "lease-1", "0"),
        "Invalid value for 'PORT': '0' is neither a port nor an absolute path of a Unix socket.",
    ),
    (
        ("run", "--limit", "files=3", "--", "true"),
        "Invalid value for '--limit': 'files=3' is not NAME=SOFT[:HARD] with a NAME of as, core, cpu,",
    ),
    (
        ("run", "--limit", "nofile=many", "--", "true"),
        "Invalid value for '--limit': 'many' is neither a number nor unlimited.",
    ),
    (("run", "-t", "--stdin-first", "--", "true"), "--tty excludes --stdin-first"),
    (("shell", "small", "--profile", "small"), "Name the profile once, by --profile or without."),
    (("metrics", "--json"), "--json is for the metrics of a VM; name a lease."),
    (("image", "build", "--agnt", "qga"), "No such option '--agnt'. Did you mean '--agent'?"),
]


async def test_other_commands_swallow_no_word_either(service: ScriptedService) -> None:
    done = await run_all(service.path, [words for words, _ in OTHERS])
    for words, message in OTHERS:
        assert (done[words].returncode, done[words].stdout) == (2, ""), words
        assert f"Error: {message}" in done[words].stderr, words
    assert service.calls == []
