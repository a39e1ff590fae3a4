"""What docs/security.md says of dependencies and limits is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from vmm.guest import budget
from vmm.guest.agent import wire
from vmm.guest.qga import protocol
from vmm.qemu.qmp.protocol import AT_ONCE, MAX_LINE_BYTES, MAX_PIECES, PER_S
from vmm.untrusted import MAX_SAID

REPOSITORY: Final = Path(__file__).parents[3]
PAGE: Final = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")


def test_each_pinned_dependency_is_there_in_its_version_and_no_other() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    listed = re.findall(r"^\| ([a-z0-9-]+) \| (\d\S*) \|", PAGE, re.MULTILINE)
    assert listed == pinned


@pytest.mark.parametrize(
    "limit",
    [
        f"answers of {wire.MAX_REPLY // 1024} KiB",
        f"{wire.WINDOW // 1024} KiB of output per stream",
        f"{budget.FRAMES_AT_ONCE} small frames at once and {budget.FRAMES_PER_S} a second",
        f"lines of {protocol.MAX_LINE // 2**20} MiB and {protocol.MAX_PIECES} pieces",
        f"lines of {MAX_LINE_BYTES // 2**20} MiB and {MAX_PIECES} pieces",
        f"{AT_ONCE} lines or KiB unasked and {PER_S} a second",
        f"{MAX_SAID} characters, and nothing that is no Unicode",
    ],
)
def test_a_limit_is_what_it_says(limit: str) -> None:
    assert limit in PAGE
