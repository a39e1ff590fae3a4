"""langchain's standard tests of a sandbox for deepagents."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests.sandboxes import SandboxIntegrationTests

from tests.running import RunningService
from vmpool import aio, sync
from vmpool.frameworks.deepagents_backend import VmpoolSandbox

PATHS = "deepagents' base class gives absolute paths, and its rules for permissions rely on them"
WRITES = "deepagents' base class replaces a file that exists"


def contradicted(name: str, reason: str) -> Any:
    """A standard test that asks for what deepagents itself does not do any more: see decision 40."""

    @pytest.mark.xfail(reason=reason, raises=AssertionError)
    def test(self: SandboxIntegrationTests, sandbox_backend: VmpoolSandbox, sandbox_test_root: str) -> None:
        getattr(SandboxIntegrationTests, name)(self, sandbox_backend, sandbox_test_root)

    return test


class TestFromThreads(SandboxIntegrationTests):  # type: ignore[misc] # Any where there is no langchain
    """All of them, with a VM of `vmpool.sync`: the asyncio half waits in threads."""

    @pytest.fixture(scope="class")
    def sandbox(self, service: RunningService) -> Iterator[VmpoolSandbox]:
        with sync.connect(service.socket_path) as pool, pool.vm() as vm:
            yield VmpoolSandbox(vm)

    test_glob = contradicted("test_glob", PATHS)
    test_glob_basic_pattern = contradicted("test_glob_basic_pattern", PATHS)
    test_glob_with_directories = contradicted("test_glob_with_directories", PATHS)
    test_glob_hidden_files_explicitly = contradicted("test_glob_hidden_files_explicitly", PATHS)
    test_glob_with_character_class = contradicted("test_glob_with_character_class", PATHS)
    test_glob_with_question_mark = contradicted("test_glob_with_question_mark", PATHS)
    test_write_existing_file_fails = contradicted("test_write_existing_file_fails", WRITES)


@pytest.fixture(scope="module")
async def awaited(service: RunningService) -> AsyncIterator[VmpoolSandbox]:
    """With a VM of `vmpool.aio`."""
    async with aio.connect(service.socket_path) as pool, pool.vm() as vm:
        yield VmpoolSandbox(vm)


@pytest.mark.parametrize(
    "name",
    [name for name, test in inspect.getmembers(SandboxIntegrationTests) if inspect.iscoroutinefunction(test)],
)
async def test_without_threads(awaited: VmpoolSandbox, name: str) -> None:
    """The asyncio half."""
    test = getattr(SandboxIntegrationTests(), name)
    arguments = {"sandbox_backend": awaited, "sandbox_test_root": f"/tmp/{name}"}
    await test(**{parameter: arguments[parameter] for parameter in inspect.signature(test).parameters})
