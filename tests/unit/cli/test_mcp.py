"""`vmpool mcp` where its extra is missing, as it is here. What it does otherwise is tested in tests/frameworks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.unit.cli.command import vmpool


@pytest.mark.skipif(importlib.util.find_spec("mcp") is not None, reason="the extra is here")
async def test_it_says_what_is_to_be_installed(vm_home: Path) -> None:
    done = await vmpool(vm_home / "none.sock", "mcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vmpool: the MCP server needs mcp, which is not installed: ")
