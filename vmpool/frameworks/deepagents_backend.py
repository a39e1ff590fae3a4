"""A sandbox for deepagents: an agent's commands and files are in a VM.

    with vmpool.sync.connect() as pool, pool.vm() as vm:
        agent = create_deep_agent(model=..., backend=VmpoolSandbox(vm))
        agent.invoke(...)

The VM stays its caller's, who ends it. With a VM of `vmpool.aio`, the agent is awaited, and no threads wait for its
commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Final

from deepagents.backends.protocol import (
    DeleteResult,
    ExecuteResponse,
    FileDownloadResponse,
    FileUploadResponse,
    GrepResult,
    LsResult,
    WriteResult,
)
from deepagents.backends.sandbox import BaseSandbox

from vmpool import aio, sync
from vmpool.aio import CallError
from vmpool.frameworks.deepagents_results import Captured, code_of, found, listed, not_started, one_stream, written

TIMEOUT_S: Final = 1800
"""Of a command, unless the agent gives another."""

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""Of a command; the rest is dropped."""

_SEARCH: Final = resources.files("vmpool.frameworks").joinpath("deepagents_grep.py").read_text()


class VmpoolSandbox(BaseSandbox):  # type: ignore[misc] # Any where there is no deepagents
    """A leased VM as a backend. Its guest must have a shell and Python, as the default one has.

    `user` runs the agent's commands and has its files; root unless named. Methods raise ClientError if the VM is gone,
    or the service.
    """

    def __init__(
        self,
        vm: sync.Vm | aio.Vm,
        *,
        user: str = "",
        timeout_s: float | None = TIMEOUT_S,
        max_output: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self._sync = vm if isinstance(vm, sync.Vm) else None
        self._aio = vm if isinstance(vm, aio.Vm) else None
        self._id = vm.lease_id
        self._user = user
        self._timeout_s = timeout_s
        self._max_output = max_output

    @property
    def id(self) -> str:
        """The lease's."""
        return self._id

    # -- commands ------------------------------------------------------------------------------------------------------

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Runs a line of the guest's shell. `timeout` is in seconds, 0 for none; what it ends has the status 124."""
        return self._run(one_stream(command), timeout)

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """As `execute`. If cancelled, the command is killed."""
        if self._aio is None:
            return await super().aexecute(command, timeout=timeout)
        return await self._arun(one_stream(command), timeout)

    def _run(self, command: str | Sequence[str], timeout: int | None) -> ExecuteResponse:
        output = Captured(limit=self._max_output)
        limit_s = self._limit_s(timeout)
        try:
            with self._vm.exec(command, user=self._user, timeout=limit_s) as running:
                running.close_stdin()
                for event in running.events():
                    output.take(event)
        except CallError as error:
            return not_started(error)
        return output.response(limit_s)

    async def _arun(self, command: str | Sequence[str], timeout: int | None) -> ExecuteResponse:
        assert self._aio is not None
        output = Captured(limit=self._max_output)
        limit_s = self._limit_s(timeout)
        try:
            async with self._aio.exec(command, user=self._user, timeout=limit_s) as running:
                await running.close_stdin()
                async for event in running.events():
                    output.take(event)
        except CallError as error:
            return not_started(error)
        return output.response(limit_s)

    @property
    def _vm(self) -> sync.Vm:
        if self._sync is None:
            raise RuntimeError("this sandbox has a VM of vmpool.aio: await the agent, or give it one of vmpool.sync")
        return self._sync

    def _limit_s(self, timeout: int | None) -> float | None:
        return self._timeout_s if timeout is None else timeout or None

    # -- files ---------------------------------------------------------------------------------------------------------

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Writes files, with the directories above them; each appears whole or not at all."""
        return [self._upload(path, content) for path, content in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Reads files."""
        return [self._download(path) for path in paths]

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """As `upload_files`."""
        if self._aio is None:
            return list(await super().aupload_files(files))
        return [await self._aupload(self._aio, path, content) for path, content in files]

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """As `download_files`."""
        if self._aio is None:
            return list(await super().adownload_files(paths))
        return [await self._adownload(self._aio, path) for path in paths]

    # The base class starts Python in the guest for these.

    def ls(self, path: str) -> LsResult:
        """What is in a directory."""
        try:
            return listed(path, self._vm.files.list(path, user=self._user))
        except CallError as error:
            return LsResult(error=f"Path '{path}': {code_of(error)}")

    async def als(self, path: str) -> LsResult:
        """As `ls`."""
        if self._aio is None:
            return await super().als(path)
        try:
            return listed(path, await self._aio.files.list(path, user=self._user))
        except CallError as error:
            return LsResult(error=f"Path '{path}': {code_of(error)}")

    def write(self, file_path: str, content: str) -> WriteResult:
        """Writes a file, with the directories above it; one that exists is replaced."""
        (response,) = self.upload_files([(file_path, content.encode())])
        return written(response)

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """As `write`."""
        (response,) = await self.aupload_files([(file_path, content.encode())])
        return written(response)

    async def adelete(self, file_path: str) -> DeleteResult:
        """As `delete`."""
        if self._aio is None:
            return await super().adelete(file_path)
        try:
            await self._aio.files.remove(file_path, user=self._user)
        except FileNotFoundError:
            return DeleteResult(error=f"Error: '{file_path}' not found")
        except CallError as error:
            return DeleteResult(error=f"Error deleting file '{file_path}': {code_of(error)}")
        return DeleteResult(path=file_path)

    def _upload(self, path: str, content: bytes) -> FileUploadResponse:
        try:
            self._vm.files.write(path, content, user=self._user)
        except CallError as error:
            return FileUploadResponse(path=path, error=code_of(error))
        return FileUploadResponse(path=path)

    async def _aupload(self, vm: aio.Vm, path: str, content: bytes) -> FileUploadResponse:
        try:
            await vm.files.write(path, content, user=self._user)
        except CallError as error:
            return FileUploadResponse(path=path, error=code_of(error))
        return FileUploadResponse(path=path)

    def _download(self, path: str) -> FileDownloadResponse:
        try:
            return FileDownloadResponse(path=path, content=self._vm.files.read(path, user=self._user))
        except CallError as error:
            return FileDownloadResponse(path=path, error=code_of(error))

    async def _adownload(self, vm: aio.Vm, path: str) -> FileDownloadResponse:
        try:
            return FileDownloadResponse(path=path, content=await vm.files.read(path, user=self._user))
        except CallError as error:
            return FileDownloadResponse(path=path, error=code_of(error))

    # -- search --------------------------------------------------------------------------------------------------------
    # The base class asks for options that busybox's grep lacks, and takes its refusal for "no matches".

    def grep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """Searches files for text. A `glob` without a slash is for their names, at any depth."""
        if glob is not None and "/" in glob:
            return super().grep(pattern, path, glob, max_count=max_count)
        return found(self._run(self._search(pattern, path, glob, max_count), None), path, max_count)

    async def agrep(
        self, pattern: str, path: str | None = None, glob: str | None = None, *, max_count: int | None = None
    ) -> GrepResult:
        """As `grep`."""
        if self._aio is None or (glob is not None and "/" in glob):
            return await super().agrep(pattern, path, glob, max_count=max_count)
        return found(await self._arun(self._search(pattern, path, glob, max_count), None), path, max_count)

    def _search(self, pattern: str, path: str | None, glob: str | None, max_count: int | None) -> list[str]:
        # One more than is wanted tells whether there are more.
        enough = "0" if max_count is None else str(max_count + 1)
        return ["python3", "-c", _SEARCH, path or ".", pattern, glob or "", enough, *self.grep_exclude_dirs]
