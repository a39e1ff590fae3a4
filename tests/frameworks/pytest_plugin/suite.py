"""Small test suites, run by a pytest of their own with the plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

CHECKOUT: Final = Path(__file__).parents[3]
PLUGIN: Final = "vmpool.frameworks.pytest_plugin"


@attrs.frozen
class Suite:
    pytester: pytest.Pytester
    monkeypatch: pytest.MonkeyPatch

    def run(self, tests: str, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """Runs a module of tests in a process of its own, where warnings are errors."""
        self.pytester.makepyfile(tests)
        named = [word for plugin in (PLUGIN, *plugins) for word in ("-p", plugin)]
        return self.pytester.runpytest_subprocess(*named, "-W", "error", "-ra", *arguments)

    async def run_with(
        self, socket_path: Path, tests: str, *arguments: str, plugins: tuple[str, ...] = ()
    ) -> pytest.RunResult:
        """As `run`, with the service on that socket, which this process may be."""
        return await trio.to_thread.run_sync(
            lambda: self.run(tests, f"--vmpool-socket={socket_path}", *arguments, plugins=plugins)
        )


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Knows no service, whatever runs on this host."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("VMPOOL_SOCKET", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Suite(pytester, monkeypatch)
