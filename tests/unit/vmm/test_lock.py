"""Who holds a lock file, as somebody sees it who does not want it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vmm.lock import holder, take_lock


def test_the_holder_is_named_while_there_is_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert holder(lock) is None
    with contextlib.ExitStack() as cleanup:
        take_lock(lock, cleanup)
        assert holder(lock) == str(os.getpid())
    assert holder(lock) is None


def test_what_a_dead_one_left_is_nobodys_and_stays(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("4711\n")
    assert holder(lock) is None
    with contextlib.ExitStack() as cleanup:
        take_lock(lock, cleanup)
