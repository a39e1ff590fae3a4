"""The backend of deepagents: what langchain's standard tests do not ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from deepagents.backends.protocol import ExecuteResponse

from tests.running import RunningService
from vmpool import aio, sync
from vmpool.frameworks.deepagents_backend import VmpoolSandbox
from vmpool.frameworks.deepagents_results import found

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def vm(service: RunningService) -> Iterator[sync.Vm]:
    with sync.connect(service.socket_path) as pool, pool.vm() as vm:
        yield vm


@pytest.fixture(scope="module")
async def awaited(service: RunningService, vm: sync.Vm) -> AsyncIterator[VmpoolSandbox]:
    """The same VM."""
    async with aio.connect(service.socket_path) as pool:
        yield VmpoolSandbox(await pool.get(vm.lease_id))


def test_a_command_runs_out_of_time(vm: sync.Vm) -> None:
    response = VmpoolSandbox(vm).execute("echo half; exec sleep 1000", timeout=1)
    assert response == ExecuteResponse("half\n\nThe command ran out of time after 1 s.", 124)


def test_output_and_errors_are_in_order_and_statuses_a_shells(vm: sync.Vm) -> None:
    sandbox = VmpoolSandbox(vm, user="user")
    assert sandbox.execute("echo 1; echo 2 >&2; id -un; kill -9 $$") == ExecuteResponse("1\n2\nuser\n", 137)
    assert sandbox.execute("cat").exit_code == 0  # nobody is there to type


def test_output_beyond_the_limit_is_dropped_and_the_command_goes_on(vm: sync.Vm) -> None:
    response = VmpoolSandbox(vm, max_output=10).execute("head -c 1000000 /dev/zero | tr '\\0' x; exit 3")
    assert response == ExecuteResponse("x" * 10, 3, truncated=True)


def test_a_command_that_cannot_be_started_is_the_agents_to_mend(vm: sync.Vm) -> None:
    assert VmpoolSandbox(vm).execute("echo \0").exit_code == 126


def test_no_more_matches_than_are_wanted(vm: sync.Vm) -> None:
    vm.files.write("/tmp/search/lines", "needle\n" * 3)
    response = VmpoolSandbox(vm).grep("needle", "/tmp/search", max_count=2)
    assert (response.error, [match["line"] for match in response.matches], response.truncated) == (None, [1, 2], True)
    missing = VmpoolSandbox(vm).grep("needle", "/tmp/missing")
    assert missing.error == "Path '/tmp/missing': no such file or directory"


@pytest.mark.parametrize("lie", ["no JSON", "[1]", "1", '["a", 1, "b", "c"]'])
def test_a_guest_that_lies_about_matches(lie: str) -> None:
    assert found(ExecuteResponse(lie, 0), "/", None).error is not None


async def test_files_without_threads(vm: sync.Vm, awaited: VmpoolSandbox) -> None:
    await awaited.awrite("/tmp/files/a", "1")
    assert (await awaited.als("/tmp/files/")).entries == [{"path": "/tmp/files/a", "is_dir": False, "size": 1}]
    matches = (await awaited.agrep("1", "/tmp/files", "a*")).matches
    assert [(match["path"], match["line"], match["text"]) for match in matches] == [("/tmp/files/a", 1, "1")]
    assert (await awaited.adelete("/tmp/files")).error is None
    assert not vm.files.exists("/tmp/files")
    assert (await awaited.adelete("/tmp/files")).error == "Error: '/tmp/files' not found"
    assert (await awaited.als("/tmp/files")).error == "Path '/tmp/files': file_not_found"


def test_a_vm_that_is_awaited_cannot_be_waited_for(awaited: VmpoolSandbox) -> None:
    with pytest.raises(RuntimeError, match="await"):
        awaited.execute("true")


def test_a_vm_that_is_gone_is_no_news_for_the_agent(service: RunningService) -> None:
    with sync.connect(service.socket_path) as pool, pool.vm() as vm:
        vm.release()
        with pytest.raises(sync.CallError):
            VmpoolSandbox(vm).execute("true")
        with pytest.raises(sync.CallError):
            VmpoolSandbox(vm).upload_files([("/a", b"")])
