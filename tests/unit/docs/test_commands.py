"""The documentation's commands and options are there, and those that need no QEMU do what is said beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import click
import pytest
import trio

from tests.documented_commands import CHECKOUT, PAGES, Documented, all_documented, blocks, documented, options
from tests.running import VMPOOL
from tests.unit.cli.command import environment
from tests.unit.rpc.served import Served, serving
from vmm.simulated import programs

OTHERS: Final = {"--no-deps", "--block-rpcs", "--allow-rpcs", "--new-pid-ns", "--netns", "--resource-limit", "--print"}
"""Options of pip, qemu-ga and of those programs with which others confine theirs."""
OTHERS_OF_OURS: Final = {"--compare"}
"""Of scripts/bench."""

LIMIT_S: Final = 120


@pytest.mark.parametrize("command", all_documented(), ids=lambda command: f"{command.where} {command.text}")
def test_a_command_that_is_shown_is_one(command: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")  # `-e TOKEN` passes it on
    command.check()


@pytest.mark.parametrize("page", PAGES)
def test_an_option_that_is_named_is_one(page: str) -> None:
    named = re.findall(r"`(--[a-z][a-z-]*)", (CHECKOUT / page).read_text(encoding="utf-8"))
    assert set(named) <= options() | OTHERS | OTHERS_OF_OURS


@pytest.mark.parametrize(
    "wrong",
    [
        "    vmpool acquire --on-emtpy boot",
        "    lease=$(vmpool acquire --on-empty never)",
        "    vmpool exec lease-1 sh -c true",
        "    true && vmpool resume small",
        "    vmpool resize small",
        "    vmpool serve [--config FILE] [--sockets PATH]",
        "```sh\nvmpool image make\n```",
        "```console\n$ vmpool renew lease-1 --ttl soon\n```",
        "It says so in `vmpool status --jsn`.",
        "So does `vmpool\nstats`.",
    ],
)
def test_a_command_that_is_wrong_is_noticed(wrong: str) -> None:
    (command,) = documented("page", wrong)
    with pytest.raises(click.UsageError):
        command.check()


# -- and do what they say ----------------------------------------------------------------------------------------------


def shown(page: str, *words: str) -> list[str]:
    """The lines of its shell blocks that name one of these commands of `vmpool`."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    commands = re.compile(rf"\bvmpool ({'|'.join(words)})\b")
    return [line for block in blocks(text) for line in block.values() if commands.search(line)]


async def typed(lines: Iterable[str], served: Served) -> str:
    """What a shell prints that is given these lines, where `vmpool` is the checkout's. It must say nothing else."""
    script = "\n".join(["set -eu", f'vmpool() {{ {" ".join(VMPOOL)} "$@"; }}', *lines])
    with trio.fail_after(LIMIT_S):
        done = await trio.run_process(
            ["bash", "-c", script],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(served.path),
        )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout.decode()


@attrs.define
class Programs:
    """Each knows one command line."""

    files: dict[str, bytes] = attrs.field(factory=dict)

    async def python3(self, process: programs.GuestProcess) -> int:
        assert process.arguments == ("-c", "print(6*7)")
        await process.print("42")
        return 0

    async def sh(self, process: programs.GuestProcess) -> int:
        assert process.arguments == ("-c", "echo hello > /tmp/x")
        self.files["/tmp/x"] = b"hello\n"
        return 0

    async def cat(self, process: programs.GuestProcess) -> int:
        (path,) = process.arguments
        await process.write(self.files[path])
        return 0


async def test_the_readmes_vms(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(programs.PROGRAMS, dict)
    guest = Programs()
    for name in ("python3", "sh", "cat"):
        monkeypatch.setitem(programs.PROGRAMS, name, getattr(guest, name))
    lines = shown("README.md", "run", "status", "acquire", "exec", "release")
    lines = [line for line in lines if "--standalone" not in line]  # that would be a service of its own, with real VMs
    assert len(lines) == 6
    async with serving(vm_home) as served:
        answer, *status, hello = (await typed(lines, served)).splitlines()
        await served.until(served.lost)
    assert (answer, hello) == ("42", "hello")
    assert any(line.startswith("default ") for line in status)


async def test_the_guides_administration_of_a_pool(vm_home: Path) -> None:
    lines = [line for line in shown("docs/guide.md", "resize", "drain", "undrain") if " small " in line]
    assert len(lines) == 3
    async with serving(vm_home, profile="small") as served:
        resize, drain, undrain = lines
        assert await typed([resize], served) == ""
        assert served.coordinator.views()[0].size == 1
        assert await typed([drain], served) == ""
        assert served.coordinator.views()[0].drained
        assert await typed([undrain], served) == ""
        assert not served.coordinator.views()[0].drained


async def test_the_guides_evictions(vm_home: Path) -> None:
    lines = [line for line in shown("docs/guide.md", "evict", "reset") if "uninstall" not in line]
    assert len(lines) == 3
    async with serving(vm_home) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        idle = {vm.vm_id for vm in served.coordinator.snapshot().vms}
        one, *others = lines
        assert await typed([re.sub(r"vm-[0-9a-f]{12}", min(idle), one)], served) == ""
        assert min(idle) not in {vm.vm_id for vm in served.coordinator.snapshot().vms}
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        assert await typed(others, served) == ""
        await served.until(lambda: not idle & {vm.vm_id for vm in served.coordinator.snapshot().vms})


# -- scripts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_a_script_that_is_named_is_there(page: str) -> None:
    named = set(re.findall(r"\bscripts/[a-z][a-z-]*", (CHECKOUT / page).read_text(encoding="utf-8")))
    assert {name for name in named if not (CHECKOUT / name).exists()} == set()


def test_the_contributors_page_names_each_script() -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scripts = {f"scripts/{path.name}" for path in (CHECKOUT / "scripts").iterdir()} - {"scripts/demo", "scripts/setup"}
    assert {script for script in scripts if f"    {script} " not in page} == set()
