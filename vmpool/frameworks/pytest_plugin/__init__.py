"""A pytest plugin: a fresh VM for a test.

    def test_it_says_its_version(vm):
        vm.files.upload("dist/app.py", "/opt/app.py")
        assert vm.run("python3 /opt/app.py --version").stdout == "1.0\\n"

Fixtures: `vm`, `vm_factory`, `aio_vm` and `trio_vm` for asynchronous tests, and `vmpool_service`. A marker says what
the VMs of a test are to be, with the arguments of `Pool.vm`:

    @pytest.mark.vmpool(profile="small", environment={"TOKEN": "x"})

Until a test asks for a VM, no service is sought or started, and nothing of the SDK is imported.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import vmpool
    from vmpool import aio, sync
    from vmpool.frameworks.pytest_plugin.sharing import Door

Evidence = Callable[[], list[tuple[str, str]]]
"""What is to be known of a VM when its test has failed: headings and texts."""

EVIDENCE: pytest.StashKey[list[Evidence]] = pytest.StashKey()
"""Of a test, for each of its VMs."""

SETTINGS: Final = {
    "socket": "socket of a service that runs (default: one on the usual places, or else one of the session's own)",
    "profile": "profile of the VMs of tests that name none",
    "timeout": "how many seconds a test waits for a VM (default: 60)",
}

DOOR: pytest.StashKey[Door] = pytest.StashKey()
"""Of a session that pytest-xdist distributes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vmpool", "virtual machines")
    for name, words in SETTINGS.items():
        group.addoption(f"--vmpool-{name}", dest=f"vmpool_{name}", default=None, help=words)
        parser.addini(f"vmpool_{name}", words, type="string", default="")
    own = "start a service for the session, whether or not one runs"
    group.addoption("--vmpool-standalone", dest="vmpool_standalone", default=None, action="store_true", help=own)
    parser.addini("vmpool_standalone", own, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vmpool(**wishes): what the test's VMs are to be, as the arguments of Pool.vm")
    config.pluginmanager.register(_for_asyncio(config), "vmpool for asyncio")


def pytest_unconfigure(config: pytest.Config) -> None:
    if (door := config.stash.get(DOOR, None)) is not None:
        door.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist starts a worker, which is told where to ask for the session's service."""
    from vmpool.frameworks.pytest_plugin.sharing import Door  # noqa: PLC0415 - only for who distributes tests

    config = node.config
    if (door := config.stash.get(DOOR, None)) is None:
        door = config.stash[DOOR] = Door(config)
    node.workerinput["vmpool_door"] = door.admit()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its VMs were doing."""
    report = yield
    if report.failed and call.when != "teardown":
        for evidence in item.stash.get(EVIDENCE, []):
            report.sections += evidence()
    return report


@pytest.fixture(scope="session")
def vmpool_service(pytestconfig: pytest.Config) -> Iterator[sync.Pool]:
    """The service that gives VMs, as a `vmpool.sync.Pool`: the one that runs, or one of the session's own.

    Under pytest-xdist the latter is shared by all workers.
    """
    from vmpool import sync  # noqa: PLC0415 - brings the SDK, as the next ones
    from vmpool.client.errors import ServiceUnavailableError  # noqa: PLC0415
    from vmpool.frameworks.pytest_plugin.service import chosen_pool  # noqa: PLC0415
    from vmpool.frameworks.pytest_plugin.sharing import ask  # noqa: PLC0415

    door = getattr(pytestconfig, "workerinput", {}).get("vmpool_door")
    with contextlib.ExitStack() as ends:
        try:
            pool = ends.enter_context(chosen_pool(pytestconfig, size=1) if door is None else sync.connect(ask(door)))
        except ServiceUnavailableError as error:
            pytest.fail(f"no VMs: {error}", pytrace=False)
        yield pool


@pytest.fixture
def vm_factory(request: pytest.FixtureRequest, vmpool_service: sync.Pool) -> Iterator[Callable[..., sync.Vm]]:
    """A function that gives a VM more each time: `vm_factory(profile="small")`. Its arguments are those of `Pool.vm`,
    beside those of the test's marker. All VMs end with the test.
    """
    from vmpool.frameworks.pytest_plugin.evidence import evidence_of  # noqa: PLC0415 - brings the SDK
    from vmpool.frameworks.pytest_plugin.wishes import wishes_of  # noqa: PLC0415

    with contextlib.ExitStack() as ends:

        def make(**wishes: Any) -> sync.Vm:
            vm = ends.enter_context(vmpool_service.vm(**{**wishes_of(request.node), **wishes}))
            _remember(request.node, lambda: evidence_of(vmpool_service, vm.lease_id))
            return vm

        yield make


@pytest.fixture
def vm(vm_factory: Callable[..., sync.Vm]) -> sync.Vm:
    """A fresh VM for the test, as a `vmpool.sync.Vm`. It ends with the test."""
    return vm_factory()


@pytest.fixture
async def trio_vm(request: pytest.FixtureRequest, vmpool_service: sync.Pool) -> AsyncIterator[vmpool.Vm]:
    """As `vm`, for tests that pytest-trio runs: a `vmpool.Vm`."""
    import trio  # noqa: PLC0415 - brings the SDK, as the next ones

    import vmpool  # noqa: PLC0415
    from vmpool.frameworks.pytest_plugin.evidence import evidence_of  # noqa: PLC0415
    from vmpool.frameworks.pytest_plugin.wishes import wishes_of  # noqa: PLC0415

    async with vmpool.connect(vmpool_service.socket_path) as pool, pool.vm(**wishes_of(request.node)) as vm:
        yield vm
        # pytest-trio ends its fixtures before it says whether the test has failed.
        evidence = await trio.to_thread.run_sync(evidence_of, vmpool_service, vm.lease_id)
        _remember(request.node, lambda: evidence)


def _for_asyncio(config: pytest.Config) -> Any:
    """A plugin with `aio_vm`. pytest-asyncio wants fixtures declared by its own function; others take pytest's."""
    declare: Any = pytest.fixture
    pytest_asyncio = sys.modules.get("pytest_asyncio.plugin")
    if pytest_asyncio is not None and config.pluginmanager.is_registered(pytest_asyncio):
        declare = pytest_asyncio.fixture

    async def aio_vm(request: pytest.FixtureRequest, vmpool_service: sync.Pool) -> AsyncIterator[aio.Vm]:
        """As `vm`, for tests that pytest-asyncio or anyio runs: a `vmpool.aio.Vm`."""
        from vmpool import aio  # noqa: PLC0415 - brings the SDK, as the next ones
        from vmpool.frameworks.pytest_plugin.evidence import evidence_of  # noqa: PLC0415
        from vmpool.frameworks.pytest_plugin.wishes import wishes_of  # noqa: PLC0415

        async with aio.connect(vmpool_service.socket_path) as pool, pool.vm(**wishes_of(request.node)) as vm:
            _remember(request.node, lambda: evidence_of(vmpool_service, vm.lease_id))
            yield vm

    plugin: Any = types.ModuleType("vmpool_for_asyncio")  # pytest looks for fixtures in modules and classes
    plugin.aio_vm = declare(aio_vm)
    return plugin


def _remember(item: pytest.Item, evidence: Evidence) -> None:
    item.stash.setdefault(EVIDENCE, []).append(evidence)
