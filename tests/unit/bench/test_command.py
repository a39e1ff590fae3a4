"""`vmpool bench` where there is no bench/: the installed package."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import pool
from pool.cli.bench import bench


def test_outside_of_a_checkout_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "__file__", str(tmp_path / "site-packages" / "pool" / "__init__.py"))
    done = CliRunner().invoke(bench, ["--list"])
    assert done.exit_code == 2
    assert "not part of the installed package" in done.output
