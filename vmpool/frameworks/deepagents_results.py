"""What the SDK says, in deepagents' words."""

from __future__ import annotations

import errno
import json
import posixpath
from collections.abc import Iterable
from typing import Final

import attrs
from deepagents.backends.protocol import (
    ExecuteResponse,
    FileUploadResponse,
    GrepMatch,
    GrepResult,
    LsResult,
    WriteResult,
)

from vmpool.aio import CallError, CommandExit, FileInfo, GuestError, Output

TIMED_OUT: Final = 124
"""The status of a command that ran out of time, as timeout(1) has it,"""
NOT_STARTED: Final = 126
"""and of one that cannot be started, as a shell has it."""


@attrs.define
class Captured:
    """What a command wrote, up to a limit, and how it ended."""

    limit: int
    data: bytearray = attrs.field(factory=bytearray)
    truncated: bool = False
    ended: CommandExit | None = None

    def take(self, event: Output | CommandExit) -> None:
        if isinstance(event, CommandExit):
            self.ended = event
            return
        room = self.limit - len(self.data)
        self.data += event.data[:room]
        self.truncated |= len(event.data) > room

    def response(self, limit_s: float | None) -> ExecuteResponse:
        assert self.ended is not None
        output = self.data.decode(errors="replace")
        if self.ended.timed_out:
            return ExecuteResponse(
                f"{output}\nThe command ran out of time after {limit_s:g} s.", TIMED_OUT, self.truncated
            )
        status = self.ended.status if self.ended.signal is None else 128 + self.ended.signal
        if self.ended.out_of_memory:
            output += "\nThe command was killed: the VM has no memory left."
        return ExecuteResponse(output, status, self.truncated)


def one_stream(command: str) -> str:
    """stdout and stderr in the order in which they were written."""
    return f"exec 2>&1\n{command}"


def not_started(error: CallError) -> ExecuteResponse:
    """Raises what is not about the command."""
    if isinstance(error, GuestError) or error.status == "INVALID_ARGUMENT":
        return ExecuteResponse(str(error), NOT_STARTED)
    raise error


_CODES: Final = {
    errno.ENOENT: "file_not_found",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "invalid_path",
    errno.ELOOP: "invalid_path",
    errno.ENAMETOOLONG: "invalid_path",
}


def code_of(error: CallError) -> str:
    """As deepagents names it, for what an agent can mend. Raises what is not about the file."""
    if isinstance(error, GuestError):
        return _CODES.get(error.errno or 0, str(error))
    if error.status == "INVALID_ARGUMENT":
        return "invalid_path"
    raise error


def listed(path: str, files: Iterable[FileInfo]) -> LsResult:
    """What is in the directory `path`."""
    entries = [
        {"path": posixpath.join(path, file.name), "is_dir": file.is_directory, "size": file.size} for file in files
    ]
    return LsResult(entries=entries)


def written(response: FileUploadResponse) -> WriteResult:
    """Of one file that was uploaded."""
    if response.error is not None:
        return WriteResult(error=f"Failed to write file '{response.path}': {response.error}")
    return WriteResult(path=response.path)


def found(response: ExecuteResponse, path: str | None, max_count: int | None) -> GrepResult:
    """What `deepagents_grep` said."""
    lines = response.output.splitlines()
    if response.exit_code != 0:
        return GrepResult(error=f"Path '{path or '.'}': {lines[-1] if lines else 'no search'}")
    if response.truncated:
        lines = lines[:-1]  # is cut
    try:
        matches = [GrepMatch(path=where, line=number, text=text) for where, number, text in map(json.loads, lines)]
    except (TypeError, ValueError):
        return GrepResult(error=f"Path '{path or '.'}': the search in the VM said something else than matches")
    more = max_count is not None and len(matches) > max_count
    return GrepResult(matches=matches[:max_count], truncated=more or response.truncated)
