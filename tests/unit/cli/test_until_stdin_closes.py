"""`vmpool serve --until-stdin-closes`, where it cannot work."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.running import vmpool_argv


def test_a_stdin_that_cannot_be_waited_for(tmp_path: Path) -> None:
    done = subprocess.run(
        vmpool_argv("serve", "--until-stdin-closes", "--socket", str(tmp_path / "s.sock")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--until-stdin-closes: stdin must be a pipe, a socket or a terminal" in done.stderr
