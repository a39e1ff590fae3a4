"""The plugin in suites of others, with a service of simulated VMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.pytest_plugin.suite import Suite, suite
from tests.unit.rpc.served import serving

pytest_plugins = "pytester"

__all__ = ["suite"]


def test_a_suite_without_vms_imports_no_transport_and_seeks_no_service(suite: Suite) -> None:
    suite.run(
        """
        import sys

        def test_nothing_of_it():
            assert not {"trio", "grpclib", "vmpool.sync", "multiprocessing"} & set(sys.modules)
        """,
        "--vmpool-socket=/nowhere.sock",
    ).assert_outcomes(passed=1)


def test_the_options_are_in_the_help(suite: Suite) -> None:
    said = suite.run("", "--help").stdout.str()
    for name in ("socket", "standalone", "profile", "timeout"):
        assert f"--vmpool-{name}" in said
        assert f"vmpool_{name} " in said


def test_the_entry_point_names_it() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nvmpool = "vmpool.frameworks.pytest_plugin"\n' in text


async def test_each_test_has_a_vm_of_its_own(suite: Suite, vm_home: Path) -> None:
    async with serving(vm_home) as served:
        done = await suite.run_with(
            served.path,
            """
            seen = set()

            def test_one(vm, vmpool_service):
                assert vm.run(["echo", "hello"]).stdout == "hello\\n"
                assert vm.labels == {"pytest": "test_each_test_has_a_vm_of_its_own.py::test_one"}
                seen.add(vm.vm_id)

            def test_other(vm):
                assert vm.vm_id not in seen
            """,
        )
        done.assert_outcomes(passed=2)
        await served.until(served.lost)


async def test_markers_and_settings_say_what_a_vm_is_to_be(suite: Suite, vm_home: Path) -> None:
    suite.pytester.makeini("[pytest]\nvmpool_profile = small\nvmpool_timeout = 30\n")
    async with serving(vm_home, profile="small") as served:
        done = await suite.run_with(
            served.path,
            """
            import pytest

            pytestmark = pytest.mark.vmpool(environment={"COLOUR": "blue"}, labels={"team": "a"}, hostname="first")

            @pytest.mark.vmpool(hostname="second")
            def test_closest(vm):
                assert vm.guest.hostname == "second"
                assert vm.profile == "small"
                assert "COLOUR=blue" in vm.run(["env"]).stdout
                assert vm.labels["team"] == "a"

            def test_factory(vm_factory):
                assert vm_factory(hostname="third").guest.hostname == "third"
                assert vm_factory().guest.hostname == "first"
            """,
        )
        done.assert_outcomes(passed=2)


async def test_several_vms_end_with_their_test(suite: Suite, vm_home: Path) -> None:
    async with serving(vm_home) as served:
        done = await suite.run_with(
            served.path,
            """
            def test_two(vm_factory, vmpool_service):
                first, second = vm_factory(), vm_factory()
                assert first.vm_id != second.vm_id
                assert len(vmpool_service.status().leases) == 2

            def test_none(vmpool_service):
                assert len(vmpool_service.status().leases) == 0
            """,
        )
        done.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("'small'", "the marker vmpool takes keywords only, as Pool.vm has them"),
        ("profil='small'", "unexpected keyword argument 'profil'"),
        ("profile='big'", "big"),
    ],
)
async def test_wishes_that_cannot_be_had_fail_the_test(suite: Suite, vm_home: Path, marker: str, said: str) -> None:
    async with serving(vm_home) as served:
        done = await suite.run_with(
            served.path, f"import pytest\n\n@pytest.mark.vmpool({marker})\ndef test(vm):\n    pass\n"
        )
    done.assert_outcomes(errors=1)
    assert said in done.stdout.str()


async def test_a_service_that_is_named_must_run(suite: Suite, vm_home: Path) -> None:
    done = await suite.run_with(vm_home / "none.sock", "def test(vm):\n    pass\n")
    done.assert_outcomes(errors=1)
    assert "the socket does not exist" in done.stdout.str()


# -- when a test fails -------------------------------------------------------------------------------------------------

_FAILING = {
    "sync": "def test(vm):\n    vm.start(['sleep', '1000'], tag='server')\n    assert False\n",
    "trio": """
        import pytest

        @pytest.mark.trio
        async def test(trio_vm):
            await trio_vm.start(["sleep", "1000"], tag="server")
            assert False
        """,
    "asyncio": """
        import pytest

        @pytest.mark.asyncio
        async def test(aio_vm):
            await aio_vm.start(["sleep", "1000"], tag="server")
            assert False
        """,
}
_PLUGINS = {"sync": (), "trio": ("pytest_trio.plugin",), "asyncio": ("pytest_asyncio.plugin",)}


@pytest.mark.parametrize("face", _FAILING)
async def test_a_failure_shows_the_console_and_the_processes(suite: Suite, vm_home: Path, face: str) -> None:
    suite.pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n" if face == "asyncio" else "")
    async with serving(vm_home) as served:
        done = await suite.run_with(served.path, _FAILING[face], plugins=_PLUGINS[face])
        await served.until(served.lost)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["* end of the console, lease-*", "* processes, lease-*", "*1 server: sleep 1000: runs"], consecutive=False
    )


# -- asynchronous tests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugins", "marker", "fixture"),
    [
        (("pytest_trio.plugin",), "trio", "trio_vm"),
        (("pytest_asyncio.plugin",), "asyncio", "aio_vm"),
        (("anyio.pytest_plugin",), "anyio", "aio_vm"),
        (("anyio.pytest_plugin", "pytest_asyncio.plugin"), "asyncio", "aio_vm"),
        (("pytest_trio.plugin", "pytest_asyncio.plugin"), "trio", "trio_vm"),
    ],
)
async def test_asynchronous_tests(
    suite: Suite, vm_home: Path, plugins: tuple[str, ...], marker: str, fixture: str
) -> None:
    suite.pytester.makeini(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n" if "asyncio" in str(plugins) else ""
    )
    async with serving(vm_home) as served:
        done = await suite.run_with(
            served.path,
            f"""
            import pytest

            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @pytest.mark.{marker}
            @pytest.mark.vmpool(hostname="mine")
            async def test({fixture}):
                assert {fixture}.guest.hostname == "mine"
                assert (await {fixture}.run(["echo", "hello"])).stdout == "hello\\n"
            """,
            plugins=plugins,
        )
        done.assert_outcomes(passed=1)
        await served.until(served.lost)


# -- pytest-xdist ------------------------------------------------------------------------------------------------------


async def test_workers_share_a_service(suite: Suite, vm_home: Path) -> None:
    async with serving(vm_home) as served:
        done = await suite.run_with(
            served.path,
            """
            import pytest

            @pytest.mark.parametrize("number", range(4))
            def test(vm, number):
                assert vm.run(["echo", "hello"]).stdout == "hello\\n"
            """,
            "-n2",
            plugins=("xdist.plugin",),
        )
        done.assert_outcomes(passed=4)
        await served.until(served.lost)


async def test_workers_learn_why_there_is_no_service(suite: Suite, vm_home: Path) -> None:
    done = await suite.run_with(vm_home / "none.sock", "def test(vm):\n    pass\n", "-n2", plugins=("xdist.plugin",))
    done.assert_outcomes(errors=1)
    assert "the socket does not exist" in done.stdout.str()
