"""The SDK next to a program's own modules of the names that the service's packages have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vmpool

OURS = ("pool", "actors", "vmm", "bench", "tests", "proto")


def run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(vmpool.__file__).parents[1])},
    )


@pytest.mark.parametrize("order", ["{own}\nimport vmpool", "import vmpool\n{own}"])
def test_modules_of_a_program_are_its_own(tmp_path: Path, order: str) -> None:
    for name in OURS:
        (tmp_path / f"{name}.py").write_text(f'MINE = "{name}"\n')
    own = "\n".join(f"import {name}" for name in OURS)
    script = tmp_path / "script.py"
    script.write_text(
        f"{order.format(own=own)}\nprint(vmpool.open_client.__name__, {', '.join(f'{name}.MINE' for name in OURS)})\n"
    )
    done = run(script)
    assert (done.stdout, done.stderr) == (f"open_client {' '.join(OURS)}\n", "")


def test_nothing_of_the_service_comes_with_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, vmpool\n"
        f"print([name for name in sys.modules if name.partition('.')[0] in {(*OURS, 'click', 'rich', 'structlog')}])\n"
    )
    done = run(script)
    assert (done.stdout, done.stderr) == ("[]\n", "")
