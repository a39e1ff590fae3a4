"""The documentation's programs, against a service with simulated VMs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import vmpool
import vmpool.client
from tests.documentation import EXAMPLES, Example, of_docstring
from tests.unit.rpc.test_own_configuration import matching
from vmm.simulated import programs


async def uname(process: programs.GuestProcess) -> int:
    await process.print("Linux")
    return 0


@pytest.fixture(autouse=True)
def programs_of_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(programs.PROGRAMS, dict)
    monkeypatch.setitem(programs.PROGRAMS, "uname", uname)


async def said(example: Example, home: Path) -> list[str]:
    async with matching(home) as served:
        lines = await example.run(served.path)
        await served.until(served.lost)
    return lines


async def test_a_machine_of_ones_own_and_the_news(vm_home: Path) -> None:
    lease, snapshot = await said(EXAMPLES["docs/guide.md 1"], vm_home)
    assert lease.startswith("lease-")
    assert " Match(profile='default', " in lease
    assert snapshot.startswith("Snapshot(")


async def test_asyncio(vm_home: Path) -> None:
    assert await said(EXAMPLES["docs/guide.md 2"], vm_home) == ["hello"]


async def test_threads(vm_home: Path) -> None:
    assert await said(EXAMPLES["docs/guide.md 3"], vm_home) == [f"job {number}" for number in range(4)]


async def test_calls_without_the_schema(vm_home: Path) -> None:
    services, version = await said(EXAMPLES["docs/guide.md 4"], vm_home)
    assert "'vmpool.v1.Pool'" in services
    assert version


@pytest.mark.parametrize("module", [vmpool.client, vmpool], ids=lambda module: module.__name__)
async def test_what_the_packages_show(vm_home: Path, module: ModuleType) -> None:
    output, end = await said(of_docstring(module.__name__, module.__doc__), vm_home)
    assert output.startswith("Output(")
    assert end.startswith("CommandExit(status=0")


def test_all_are_run() -> None:
    here = {f"docs/guide.md {number}" for number in range(1, 5)}
    in_real_vms = {"README.md 1"} | {
        f"docs/tasks/{name}.md {n}" for name in ("untrusted-code", "ci-job") for n in (1, 2)
    }
    assert set(EXAMPLES) == here | in_real_vms  # the latter in tests/integration/service/test_documentation.py
