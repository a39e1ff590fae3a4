"""Where the command is, and how it comes onto PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pool.cli.program import command_line, own_program, way_onto_path

USER = 1000


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return executable(tmp_path / "venv" / "bin" / "vmpool")


def way(program: Path, *, search_path: str, home: Path, uid: int = USER) -> str | None:
    return way_onto_path(program, search_path=search_path, home=home, uid=uid)


def shell(line: str, *, search_path: str) -> str:
    """What `vmpool` means after that line."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{line} && command -v vmpool"],
        env={"PATH": search_path},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()


def test_nothing_is_to_be_done_where_it_is_on_path(program: Path, tmp_path: Path) -> None:
    assert way(program, search_path=f"/usr/bin:{program.parent}", home=tmp_path) is None


def test_a_link_to_it_will_do(program: Path, tmp_path: Path) -> None:
    (tmp_path / "vmpool").symlink_to(program)
    assert way(program, search_path=str(tmp_path), home=tmp_path) is None


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_users_link_it_into_their_own_directory(program: Path, tmp_path: Path, there: bool) -> None:
    links = tmp_path / "o'home" / ".local" / "bin"
    if there:
        links.mkdir(parents=True)
    search_path = f"{links}:/usr/bin:/bin"
    line = way(program, search_path=search_path, home=tmp_path / "o'home")
    assert line is not None
    assert shell(line, search_path=search_path) == str(links / "vmpool")
    assert (links / "vmpool").samefile(program)


def test_root_links_it_for_all(program: Path, tmp_path: Path) -> None:
    line = way(program, search_path="/usr/local/bin:/usr/bin", home=tmp_path, uid=0)
    assert line == f"ln -s {program} /usr/local/bin/"


def test_without_a_directory_for_links_its_own_goes_onto_path(program: Path, tmp_path: Path) -> None:
    line = way(program, search_path="/usr/bin:/bin", home=tmp_path)
    assert line is not None
    assert line.startswith("export PATH=")
    assert shell(line, search_path="/usr/bin:/bin") == str(program)


def test_another_that_is_found_before_is_not_replaced(program: Path, tmp_path: Path) -> None:
    other = executable(tmp_path / ".local" / "bin" / "vmpool")
    search_path = f"{other.parent}:/usr/bin:/bin"
    line = way(program, search_path=search_path, home=tmp_path)
    assert line is not None
    assert shell(line, search_path=search_path) == str(program)
    assert not other.samefile(program)


def test_the_command_is_found_as_it_was_called(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["venv/bin/../bin/vmpool", "demo"])
    assert own_program() == program


def test_else_it_is_the_one_beside_the_interpreter(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/pool/cli/main.py"])
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert own_program() == program


def test_there_may_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert own_program() is None


def test_we_start_ourselves_whatever_lies_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text("raise SystemExit('mine')")
    done = subprocess.run(
        command_line("--version"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
