"""The search that runs in guests, on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vmpool.frameworks import deepagents_grep
from vmpool.frameworks.deepagents_grep import files_of, matches_in


def search(
    root: Path, pattern: str, names: str = "", enough: int = 0, *, without: tuple[str, ...] = ()
) -> list[tuple[str, int, str]]:
    """As in a guest: the module's text is the program."""
    text = Path(deepagents_grep.__file__).read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", text, str(root), pattern, names, str(enough), *without],
        capture_output=True,
        check=True,
    )
    return [
        (path.removeprefix(f"{root}/"), number, line)
        for path, number, line in map(json.loads, done.stdout.splitlines())
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, text in {
        "b.py": "one\nneedle two\n",
        "a.txt": "needle [a]*",
        ".hidden/c.py": "needle",
        ".git/d.py": "needle",
        "sub/.git/e.py": "needle",
        "sub/na:me\n.py": "\n\nneedle\n",
        "binary.py": "\0needle",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "link.py").symlink_to("b.py")
    os.mkfifo(tmp_path / "fifo.py")
    return tmp_path


def test_all_files_with_text_below_a_directory(tree: Path) -> None:
    assert search(tree, "needle", without=(".git",)) == [
        ("a.txt", 1, "needle [a]*"),
        ("b.py", 2, "needle two"),
        (".hidden/c.py", 1, "needle"),
        ("sub/na:me\n.py", 3, "needle"),
    ]


def test_names_at_any_depth(tree: Path) -> None:
    assert [path for path, *_ in search(tree, "needle", "*.py", without=(".git", ".hidden"))] == [
        "b.py",
        "sub/na:me\n.py",
    ]


def test_text_is_no_pattern_and_a_line_break_means_either(tree: Path) -> None:
    assert search(tree, "[a]*") == [("a.txt", 1, "needle [a]*")]
    assert [number for *_, number, _ in search(tree / "b.py", "one\ntwo")] == [1, 2]


def test_enough_is_enough(tree: Path) -> None:
    assert len(search(tree, "needle", enough=2)) == 2


def test_a_path_that_is_not_there_is_an_error(tree: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        search(tree / "missing", "needle")
    assert raised.value.stderr == b"no such file or directory\n"


def test_a_fifo_is_not_waited_for(tree: Path) -> None:
    assert search(tree / "fifo.py", "needle") == []


@examples(100)
@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").replace(b"\0", b"")), max_size=10),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=3),
)
def test_the_lines_are_those_that_have_the_text(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(b"\n".join(lines))
    assert [number for number, _ in matches_in(str(path), [text.encode()])] == [
        number for number, line in enumerate(lines, 1) if text.encode() in line
    ]
    assert list(files_of(str(path), "*.py", set())) == [str(path)]
