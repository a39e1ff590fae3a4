"""What the tools return: records with schemas. Descriptions are for models.

Pydantic makes the schemas, and knows dataclasses, but not attrs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Encoding = Literal["text", "base64"]


@dataclass(frozen=True, kw_only=True)
class VmInfo:
    vm: Annotated[str, Field(description="Give this as `vm` to the other tools.")]
    profile: str
    vcpus: int
    memory_mib: int
    forwards: Annotated[dict[int, str], Field(description="Exposed ports, and their addresses on the host.")]


@dataclass(frozen=True, kw_only=True)
class VmList:
    vms: list[VmInfo]
    most: Annotated[int, Field(description="How many there may be at a time.")]


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    exit_status: Annotated[int | None, Field(description="null if a signal ended the command.")]
    signal: Annotated[int | None, Field(description="Number of the signal that ended the command.")]
    timed_out: bool
    out_of_memory: bool
    stdout: str
    stderr: str
    left_out: Annotated[int, Field(description="Bytes of output that are missing here, where the text says so.")]


@dataclass(frozen=True, kw_only=True)
class Started:
    process: Annotated[int, Field(description="Give this as `process` to the other tools.")]


@dataclass(frozen=True, kw_only=True)
class ProcessOutput:
    running: bool
    exit_status: int | None
    signal: int | None
    stdout: str
    stderr: str
    left_out: Annotated[int, Field(description="Bytes of output that are missing here.")]
    next_stdout: Annotated[int, Field(description="As `stdout_from`, gives only what comes after this.")]
    next_stderr: Annotated[int, Field(description="As `stderr_from`, gives only what comes after this.")]


@dataclass(frozen=True, kw_only=True)
class Stopped:
    exit_status: Annotated[int | None, Field(description="null if a signal ended the process.")]
    signal: int | None


@dataclass(frozen=True, kw_only=True)
class Written:
    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FileContent:
    content: str
    encoding: Encoding
    offset: int
    length: Annotated[int, Field(description="Bytes of the file that `content` stands for.")]
    end_of_file: Annotated[bool, Field(description="false: there is more at `offset` + `length`.")]


@dataclass(frozen=True, kw_only=True)
class Entry:
    path: str
    kind: str
    size: int
    mode: Annotated[str, Field(description="Permissions, octal.")]


@dataclass(frozen=True, kw_only=True)
class Listing:
    entries: list[Entry]
    complete: Annotated[bool, Field(description="false: there are more; list a directory below this one.")]


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    vm: str
