"""`import vmpool`: what the SDK's name gives, beside whatever files its user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pool.client
import vmpool

CHECKOUT = Path(__file__).parents[3]

SCRIPT = """
import sys

import vmpool

for name in vmpool.__all__:
    getattr(vmpool, name)
assert sys.modules.keys().isdisjoint({"pool", "actors", "vmm"})

import actors
import pool
import vmm

assert pool.HERE and actors.HERE and vmm.HERE
"""


def test_it_gives_what_the_client_gives() -> None:
    assert set(pool.client.__all__) <= set(vmpool.__all__)


def test_it_gives_what_a_command_sends() -> None:
    assert {"CommandExit", "Output", "OutputStream"} <= set(vmpool.__all__)


def test_a_name_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Service'"):
        _ = vmpool.Service  # type: ignore[attr-defined]


@pytest.mark.parametrize("places", ["modules", "packages"])
def test_a_user_has_files_with_the_names_of_our_packages(tmp_path: Path, places: str) -> None:
    for name in ("pool", "actors", "vmm"):
        file = tmp_path / f"{name}.py" if places == "modules" else tmp_path / name / "__init__.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("HERE = True\n")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
