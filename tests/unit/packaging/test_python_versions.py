"""One range of Python versions: pyproject.toml's. What else names versions follows it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
REQUIRED = PYPROJECT["project"]["requires-python"]


def minors() -> list[int]:
    """Of Python 3."""
    required = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", REQUIRED)
    assert required is not None, REQUIRED
    low, end = required.groups()
    return list(range(int(low), int(end)))


def test_the_readme_says_of_each_what_is_tested() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [int(minor) for minor in re.findall(r"^\| 3\.(\d+) \|", readme, flags=re.MULTILINE)] == minors()


def test_there_is_a_classifier_for_each() -> None:
    prefix = "Programming Language :: Python :: 3."
    classifiers = [text for text in PYPROJECT["project"]["classifiers"] if text.startswith(prefix)]
    assert classifiers == [f"{prefix}{minor}" for minor in minors()]


def test_the_oldest_is_what_is_locked_and_checked_for() -> None:
    oldest = f"3.{minors()[0]}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"--python-version {oldest} " in (REPOSITORY / "scripts/lock").read_text(encoding="utf-8")


def test_setup_refuses_another_by_pyprojects_range(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    with_old_version = f'sed "s/sys.version_info/(3, 9, 2)/" | {sys.executable} "$@"'
    python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 || {with_old_version}\n', encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / "scripts/setup"],
        env={"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"python3: it is Python 3.9.2, vmpool needs {REQUIRED}" in done.stderr
