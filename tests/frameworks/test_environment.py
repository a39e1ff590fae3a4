"""The environment of these tests has what the extras promise."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("module", ["deepagents", "inspect_ai", "ipykernel", "langchain_tests", "mcp", "nbclient"])
def test_the_frameworks_are_there(module: str) -> None:
    assert importlib.import_module(module).__name__ == module
