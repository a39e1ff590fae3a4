"""Manual pages: whole, by troff's own account without a mistake, and readable where there is no man(1)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.cli.main import main
from pool.cli.manual.page import Lines, Page, Paragraph, Section, Terms, pages
from pool.cli.manual.plain import plain
from pool.cli.manual.roff import roff
from tests.unit.cli.command import vmpool
from tests.unit.cli.forked import commands

needs_man: Final = pytest.mark.skipif(shutil.which("man") is None, reason="man(1) is not installed")
needs_mandoc: Final = pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")

_UNDATED: Final = "missing date"
"""On purpose: the same version always gives the same page."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    for page in pages(main):
        (directory / f"{page.name}.1").write_text(roff(page, version="1.0"))
    return directory


def test_every_command_has_a_page(written: Path) -> None:
    named = {path.stem for path in written.iterdir()}
    assert named >= {"vmpool", *("-".join(("vmpool", *words)) for words, _ in commands() if words != ("bench",))}


def shown(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["man", *options, "-l", page],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@needs_man
def test_troff_has_nothing_to_complain_of(written: Path) -> None:
    for page in written.iterdir():
        assert shown(page, "--warnings").stderr == "", page


@needs_mandoc
def test_mandoc_has_nothing_to_complain_of(written: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *written.iterdir()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert [line for line in done.stdout.splitlines() if _UNDATED not in line] == []


ODD: Final = "a\\b -x --long 'quoted' ~/.rc ^C .start \"two\" \\fBnot bold\\fR\t`"


def page_of(text: str) -> Page:
    blocks = (Paragraph(text), Lines((text, f".{text}", f"'{text}")), Terms(((text, text), (text, ""))))
    return Page(name="vmpool-odd", summary="odd", sections=(Section("ODD", blocks),))


@needs_man
def test_what_troff_takes_for_its_own_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "odd.1"
    path.write_text(roff(page_of(f". {ODD}"), version="1.0"))
    done = shown(path, "--warnings")
    assert done.stderr == ""
    words = " ".join(done.stdout.split())
    assert words.count(" ".join(ODD.split())) == 7


@given(text=st.text(st.characters(codec="ascii", exclude_characters="\n")))
def test_no_text_is_taken_for_a_request(text: str) -> None:
    requests = {".TH", ".SH", ".PP", ".RS", ".nf", ".fi", ".RE", ".TP"}
    for line in roff(page_of(text), version="1.0").split("\n"):
        assert not line.startswith("'"), line
        assert not line.startswith(".") or line.split()[0] in requests


async def test_without_a_terminal_the_page_is_text(tmp_path: Path) -> None:
    done = await vmpool(tmp_path / "no.sock", "man", "image", "build")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME\n       vmpool-image-build - ")
    assert "\nOPTIONS\n       --" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


async def test_all_pages_are_written(tmp_path: Path) -> None:
    done = await vmpool(tmp_path / "no.sock", "man", "--write", str(tmp_path / "a" / "man1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a/man1/vmpool-run.1").read_text().startswith('.TH "VMPOOL\\-RUN" "1"')


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("man", "bogus"), 2, "There is no command `vmpool bogus`; `vmpool --help` lists them."),
        (("man", "run", "bogus"), 2, "There is no command `vmpool run bogus`"),
        (("man", "run", "--write", "x"), 2, "--write writes all pages; leave out the command."),
        (("man", "--write", "/proc/x"), 1, "vmpool: cannot write /proc/x: "),
    ],
)
async def test_what_is_wrong_is_told(tmp_path: Path, line: tuple[str, ...], code: int, said: str) -> None:
    done = await vmpool(tmp_path / "no.sock", *line)
    assert done.returncode == code
    assert said in done.stderr


def test_plain_text_keeps_lines_that_are_examples() -> None:
    assert f"           {ODD}\n" in plain(page_of(ODD), width=80)
