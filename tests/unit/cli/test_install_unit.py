"""`vmpool install-unit`. A root directory stands in for the host's."""

from __future__ import annotations

import sys
from pathlib import Path

import click.testing
import pytest

from pool.cli.main import main
from pool.systemd.files import CONFIGURATION, UNIT, USER
from pool.systemd.places import Place
from pool.systemd.unit import packaged_unit, unit_for

PROGRAM = Path("/usr/bin/vmpool")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as a command that is installed for all; the host has nothing to object."""
    monkeypatch.setattr("pool.cli.install_unit.own_program", lambda: PROGRAM)
    monkeypatch.setattr("pool.cli.install_unit.places_of", lambda _: frozenset({PROGRAM}))
    monkeypatch.setattr("pool.cli.install_unit.first_closed", lambda _: None)
    monkeypatch.setattr("pool.cli.install_unit.first_of_others", lambda _: None)


def vmpool(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["install-unit", *arguments])


def at(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


@pytest.mark.usefixtures("program")
def test_it_starts_this_very_command(tmp_path: Path) -> None:
    done = vmpool("--root", str(tmp_path))
    assert (done.exit_code, done.stderr) == (0, "")
    assert at(tmp_path, UNIT).read_text() == packaged_unit()
    assert done.stdout.splitlines() == [f"wrote {at(tmp_path, path)}" for path in (UNIT, USER, CONFIGURATION)]


def test_a_package_names_another_command(tmp_path: Path) -> None:
    done = vmpool("--root", str(tmp_path), "--command", "/usr/libexec/vmpool")
    assert done.exit_code == 0
    assert at(tmp_path, UNIT).read_text() == unit_for(Path("/usr/libexec/vmpool"))


def test_printing_writes_nothing(tmp_path: Path) -> None:
    done = vmpool("--root", str(tmp_path), "--command", "/usr/bin/vmpool", "--print")
    assert (done.exit_code, done.stdout) == (0, packaged_unit())
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_removed(tmp_path: Path) -> None:
    vmpool("--root", str(tmp_path), "--command", "/usr/bin/vmpool")
    at(tmp_path, CONFIGURATION).write_text("mine")
    done = vmpool("--root", str(tmp_path), "--uninstall")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"removed {at(tmp_path, UNIT)}",
        f"removed {at(tmp_path, USER)}",
        f"kept {at(tmp_path, CONFIGURATION)}: it differs from the default",
    ]


@pytest.mark.usefixtures("program")
def test_a_command_that_the_service_cannot_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Place(path=Path("/home/me"), mode=0o40700, uid=1000, gid=1000)
    monkeypatch.setattr("pool.cli.install_unit.first_closed", lambda _: closed)
    done = vmpool("--root", str(tmp_path))
    assert done.exit_code == 2
    assert done.stderr.startswith("vmpool: /home/me (mode 700, uid 1000) is inaccessible to the service, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("program")
def test_a_command_that_others_can_change_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Place(path=Path("/srv/me"), mode=0o40755, uid=1000, gid=1000)
    monkeypatch.setattr("pool.cli.install_unit.first_of_others", lambda _: theirs)
    done = vmpool("--root", str(tmp_path))
    assert done.exit_code == 0
    assert done.stderr.startswith(
        "warning: the service runs as root and executes files in /srv/me (mode 755, uid 1000), "
    )


def test_who_was_not_started_as_the_command_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    done = vmpool("--root", str(tmp_path))
    assert (done.exit_code, done.stderr) == (
        2,
        "vmpool: this program was not started as `vmpool`; name the command with --command PATH\n",
    )


def test_where_it_may_not_write_it_says_who_may(tmp_path: Path) -> None:
    (tmp_path / "etc").touch()
    done = vmpool("--root", str(tmp_path), "--command", "/usr/bin/vmpool")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"vmpool: {tmp_path}/etc/systemd")
    assert done.stderr.endswith("; run install-unit as root, or with --root DIR\n")


@pytest.mark.parametrize("other", [["--print"], ["--command", "/usr/bin/vmpool"]])
def test_removing_goes_with_nothing_else(other: list[str]) -> None:
    done = vmpool("--uninstall", *other)
    assert done.exit_code == 2
    assert "--uninstall can be combined with --root only" in done.stderr
