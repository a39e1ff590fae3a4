"""The pages about frameworks do what they say, with a service of simulated VMs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import click
import pytest
import trio

from pool.cli.main import main
from tests.documented_commands import options
from tests.frameworks.pytest_plugin.suite import CHECKOUT, Suite, suite
from tests.unit.rpc.served import serving
from vmpool.frameworks.pytest_plugin import SETTINGS

pytest_plugins = "pytester"

__all__ = ["suite"]


def page(name: str) -> str:
    return (CHECKOUT / "docs/tasks" / name).read_text(encoding="utf-8")


def block(name: str, language: str) -> str:
    """The only one in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    return str(found)


async def test_the_suite_passes(suite: Suite, vm_home: Path) -> None:
    async with serving(vm_home) as served:
        done = await suite.run_with(served.path, block("test-suite.md", "python"))
    done.assert_outcomes(passed=3)


def test_the_plugins_settings_are_all_told() -> None:
    told = re.findall(r"^\| `--vmpool-([a-z]+)` \| `vmpool_([a-z]+)` \|", page("test-suite.md"), re.MULTILINE)
    assert {option for option, _ in told} == {setting for _, setting in told} == {*SETTINGS, "standalone"}


def test_the_servers_options_are_some() -> None:
    assert set(re.findall(r"`(--[a-z-]+)", page("agents-tool.md"))) <= options()


def test_a_clients_configuration_starts_the_server() -> None:
    (server,) = json.loads(block("agents-tool.md", "json"))["mcpServers"].values()
    assert server["command"] == "vmpool"
    name, *arguments = server["args"]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    command.make_context(name, arguments)


async def test_a_program_that_calls_tools(vm_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmpool = tmp_path / "vmpool"
    vmpool.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m pool.cli.main "$@"\n')
    vmpool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with serving(vm_home) as served:
        program = block("agents-tool.md", "python").replace("/run/vmpool/vmpool.sock", str(served.path))
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, "-"], stdin=program.encode(), capture_stdout=True, capture_stderr=True
            )
        assert (done.stdout, done.stderr) == (b"hello\n", b"")
        await served.until(served.lost)
