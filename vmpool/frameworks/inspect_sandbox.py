"""A sandbox for inspect-ai: each sample of an evaluation has a VM of its own.

    Task(..., sandbox="vmpool")
    Task(..., sandbox=("vmpool", "small"))  # a VM of that profile
    Task(..., sandbox=SandboxEnvironmentSpec("vmpool", VmpoolSandboxConfig(standalone=True)))

inspect-ai finds it by its entry point.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shlex
from collections.abc import Iterator
from typing import Any, Final, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)

from vmpool import aio
from vmpool.aio import (
    CallError,
    ClientError,
    CompletedCommand,
    GuestError,
    OutputTooLargeError,
    WriteMode,
)
from vmpool.frameworks.inspect_config import VmpoolSandboxConfig, resolved
from vmpool.frameworks.inspect_leases import begin_sample, begin_task, end_samples, end_task, prepare_directory

NOT_FOUND: Final = 127
"""A shell's status for a program that is not there,"""
NOT_EXECUTABLE: Final = 126
"""and for one that cannot be started."""


class SandboxCommandTimeoutError(TimeoutError):
    """A command ran out of time; inspect-ai shows `truncated_output` to the model."""

    def __init__(self, message: str, *, truncated_output: str) -> None:
        super().__init__(message)
        self.truncated_output = truncated_output


@sandboxenv(name="vmpool")
class VmpoolSandboxEnvironment(SandboxEnvironment):  # type: ignore[misc] # Any where there is no inspect-ai
    """The VM of a sample. inspect-ai makes and ends it."""

    def __init__(
        self, pool: aio.Pool, vm: aio.Vm, config: VmpoolSandboxConfig, directory: str, ends: contextlib.AsyncExitStack
    ) -> None:
        super().__init__()
        self._pool = pool
        self._vm = vm
        self._config = config
        self._directory = directory
        self._ends = ends

    @property
    def vm(self) -> aio.Vm:
        """For what inspect-ai has no call for: `sandbox().as_type(VmpoolSandboxEnvironment).vm.forward(8080)`."""
        return self._vm

    # -- what a sample does --------------------------------------------------------------------------------------------

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,  # noqa: ARG002 - the guest ends a command that runs out of time; it would again
        concurrency: bool = True,  # noqa: ARG002 - nothing runs on this host
    ) -> ExecResult[str]:
        """Runs a command. A `timeout` ends it, with all that it has started.

        One that cannot be started has the status that a shell gives it. Raises SandboxUserUnsupportedError if the guest
        has no such user, SandboxUnavailableError if the VM or its service is gone, TimeoutError, PermissionError, and
        OutputLimitExceededError.
        """
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        who = user or self._config.user
        try:
            with _available():
                done = await self._vm.run(
                    cmd,
                    input=input,
                    cwd=self._path(cwd or ""),
                    environment=env,
                    user=who,
                    timeout=timeout,
                    max_output=2 * limit,
                )
        except OutputTooLargeError as error:
            raise _too_much_output(
                error.stdout.decode(errors="replace"), error.stderr.decode(errors="replace")
            ) from error
        except (PermissionError, TimeoutError):
            raise
        except FileNotFoundError as error:
            return _not_started(NOT_FOUND, error)
        except CallError as error:
            if who and isinstance(error, GuestError) and error.errno == errno.EINVAL:
                raise SandboxUserUnsupportedError(str(error)) from error
            return _not_started(NOT_EXECUTABLE, error)
        if done.timed_out:
            raise SandboxCommandTimeoutError(
                f"the command ran out of time after {timeout} seconds", truncated_output=done.stdout + done.stderr
            )
        if max(len(done.stdout), len(done.stderr)) > limit:
            raise _too_much_output(done.stdout, done.stderr)
        status = _status(done)
        return ExecResult(success=status == 0, returncode=status, stdout=done.stdout, stderr=done.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Writes a file in place, as its user; missing directories are made. Raises OSError as open(2) has it."""
        with _available():
            await self._vm.files.write(
                self._path(file), contents, parents=True, how=WriteMode.TRUNCATE, user=self._config.user
            )

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """A file's content. Raises OSError as open(2) has it, UnicodeDecodeError, OutputLimitExceededError."""
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        with _available():
            content = await self._vm.files.read(self._path(file), length=limit + 1, user=self._config.user)
        if len(content) > limit:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return content.decode() if text else content

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """How to get a shell in the VM. Raises ConnectionError if it is gone."""
        try:
            await self._pool.get(self._vm.lease_id)
        except ClientError as error:
            raise ConnectionError(str(error)) from error
        who = user or self._config.user
        service = [] if self._config.socket is None else ["env", f"VMPOOL_SOCKET={self._config.socket}"]
        command = [*service, "vmpool", "shell", *(["--user", who] if who else []), self._vm.name]
        return SandboxConnection(type="vmpool", command=shlex.join(command))

    def default_polling_interval(self) -> float:
        """Seconds between questions to what inspect-ai runs in the guest."""
        return 0.2

    def _path(self, path: str) -> str:
        return posixpath.join(self._directory, path)

    # -- what an evaluation does ---------------------------------------------------------------------------------------

    @classmethod
    def default_concurrency(cls) -> int | None:
        """How many samples have a VM at a time, unless `max_sandboxes` says so."""
        return 2 * len(os.sched_getaffinity(0))

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> VmpoolSandboxConfig:
        return VmpoolSandboxConfig(**config)

    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        """Starts the service, if it is to be the evaluation's own; otherwise looks whether there is one."""
        await begin_task(resolved(config))

    @classmethod
    async def task_cleanup(cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool) -> None:
        """Ends the evaluation's own service with the last of its tasks."""
        await end_task(resolved(config))

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """A VM for a sample."""
        wanted = resolved(config)
        ends = contextlib.AsyncExitStack()
        try:
            pool, vm = await begin_sample(wanted, task_name, str(metadata.get("__sample_id__", "")), ends)
            directory = await prepare_directory(vm, wanted)
        except BaseException:
            await ends.aclose()
            raise
        return {"default": cls(pool, vm, wanted, directory, ends)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Ends a sample's VM."""
        for environment in environments.values():
            await environment.as_type(cls)._ends.aclose()  # noqa: SLF001 - of this class

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        """`inspect sandbox cleanup vmpool [ID]`: ends the VMs of all evaluations of this user, also of those that run;
        or those of one run, or one by its lease's id or name.
        """
        async with aio.connect() as pool:
            await end_samples(pool, id)


@contextlib.contextmanager
def _available() -> Iterator[None]:
    """Errors that are not about what was asked for say that the VM cannot be used."""
    try:
        yield
    except (OSError, OutputTooLargeError):
        raise
    except ClientError as error:
        if isinstance(error, CallError) and error.status == "INVALID_ARGUMENT":
            raise
        raise SandboxUnavailableError(str(error)) from error


def _not_started(status: int, error: Exception) -> ExecResult[str]:
    return ExecResult(success=False, returncode=status, stdout="", stderr=f"{error}\n")


def _status(done: CompletedCommand[str]) -> int:
    """As a shell gives it."""
    return 128 + done.signal if done.signal is not None else done.status or 0


def _too_much_output(stdout: str, stderr: str) -> OutputLimitExceededError:
    limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
    return OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, stdout[:limit] + stderr[:limit])
