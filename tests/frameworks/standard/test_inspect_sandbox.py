"""The sandbox of inspect-ai: what its own check does not ask for."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.util import OutputLimitExceededError, SandboxUnavailableError, SandboxUserUnsupportedError
from inspect_ai.util._sandbox.limits import override_max_exec_output_size

from tests.running import RunningService
from vmpool import aio
from vmpool.frameworks.inspect_config import VmpoolSandboxConfig, resolved
from vmpool.frameworks.inspect_leases import RUN
from vmpool.frameworks.inspect_sandbox import VmpoolSandboxEnvironment

pytestmark = pytest.mark.qemu


@asynccontextmanager
async def sampled(config: VmpoolSandboxConfig) -> AsyncIterator[VmpoolSandboxEnvironment]:
    """The sandbox of a sample; cleaned up unless the test has done so."""
    environments = await VmpoolSandboxEnvironment.sample_init("a task: 1", config, {"__sample_id__": "é" * 200})
    yield environments["default"]
    await VmpoolSandboxEnvironment.sample_cleanup("a task: 1", config, environments, interrupted=True)


@pytest.fixture(scope="module")
async def sandbox(service: RunningService) -> AsyncIterator[VmpoolSandboxEnvironment]:
    config = VmpoolSandboxConfig(
        socket=str(service.socket_path), environment={"COLOUR": "red"}, working_directory="/srv/task"
    )
    async with sampled(config) as sandbox:
        yield sandbox


async def test_what_a_task_says_of_its_vms(sandbox: VmpoolSandboxEnvironment) -> None:
    done = await sandbox.exec(["sh", "-c", "pwd; echo $COLOUR; id -u"])
    assert (done.success, done.stdout) == (True, "/srv/task\nred\n0\n")


async def test_a_command_that_cannot_be_started_has_a_shells_status(sandbox: VmpoolSandboxEnvironment) -> None:
    missing = await sandbox.exec(["missing"])
    assert (missing.success, missing.returncode) == (False, 127)
    assert "missing" in missing.stderr
    assert (await sandbox.exec(["true"], cwd="nowhere")).returncode == 127
    assert (await sandbox.exec(["true", "\0"])).returncode == 126


async def test_time_runs_out_with_what_was_written_until_then(sandbox: VmpoolSandboxEnvironment) -> None:
    with pytest.raises(TimeoutError) as raised:
        await sandbox.exec(["sh", "-c", "echo half; exec sleep 1000"], timeout=1)
    assert getattr(raised.value, "truncated_output", None) == "half\n"


@pytest.mark.parametrize("command", ["head -c 1025 /dev/zero", "head -c 1025 /dev/zero >&2", "yes"])
async def test_too_much_output_is_an_error_with_its_beginning(sandbox: VmpoolSandboxEnvironment, command: str) -> None:
    with override_max_exec_output_size(1024), pytest.raises(OutputLimitExceededError) as raised:
        await sandbox.exec(["sh", "-c", command])
    assert len(raised.value.truncated_output or "") == 1024


async def test_a_user_that_is_not_there(sandbox: VmpoolSandboxEnvironment) -> None:
    with pytest.raises(SandboxUserUnsupportedError, match="nobody-in-particular"):
        await sandbox.exec(["true"], user="nobody-in-particular")


async def test_a_way_in(service: RunningService, sandbox: VmpoolSandboxEnvironment) -> None:
    connection = await sandbox.connection(user="user")
    assert connection.type == "vmpool"
    assert shlex.split(connection.command) == [
        *("env", f"VMPOOL_SOCKET={service.socket_path}"),
        *("vmpool", "shell", "--user", "user", sandbox.vm.name),
    ]


async def test_leases_say_whose_they_are(sandbox: VmpoolSandboxEnvironment) -> None:
    assert sandbox.vm.name.startswith("inspect-a-task--1-")
    assert sandbox.vm.labels == {
        "inspect-ai.task": "a task: 1",
        "inspect-ai.sample": "é" * 128,
        "inspect-ai.run": RUN,
    }


async def test_a_vm_that_is_gone(service: RunningService) -> None:
    async with sampled(VmpoolSandboxConfig(socket=str(service.socket_path))) as sandbox:
        await sandbox.vm.release()
        with pytest.raises(SandboxUnavailableError):
            await sandbox.exec(["true"])
        with pytest.raises(SandboxUnavailableError):
            await sandbox.read_file("/etc/passwd")
        with pytest.raises(ConnectionError):
            await sandbox.connection()


async def test_a_vm_that_is_kept_is_there_until_it_is_cleaned_up(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMPOOL_SOCKET", str(service.socket_path))
    async with sampled(VmpoolSandboxConfig(keep_s=600)) as sandbox, aio.connect() as pool:
        (own,) = [lease for lease in await pool.leases() if lease.lease_id == sandbox.vm.lease_id]
        await VmpoolSandboxEnvironment.cli_cleanup("another")
        assert own.lease_id in [lease.lease_id for lease in await pool.leases()]
        await VmpoolSandboxEnvironment.cli_cleanup(own.name)
        assert own.lease_id not in [lease.lease_id for lease in await pool.leases()]


async def test_a_task_without_a_service_is_told_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(aio.ServiceUnavailableError):
        await VmpoolSandboxEnvironment.task_init("task", VmpoolSandboxConfig(socket=str(tmp_path / "s.sock")))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"standalone": True, "socket": "/run/s"}, "standalone"),
        ({"standalone": True, "profile": "small"}, "standalone"),
        ({"working_directory": "task"}, "working_directory"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        VmpoolSandboxEnvironment.config_deserialize(wrong)


def test_a_configuration_survives_a_log() -> None:
    config = VmpoolSandboxConfig(environment={"A": "b"}, user="user")
    again = VmpoolSandboxEnvironment.config_deserialize(config.model_dump())
    assert {config: True}[again]
    assert resolved("small") == VmpoolSandboxConfig(profile="small")
