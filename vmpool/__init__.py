"""The SDK: VMs that are ready in milliseconds, from a trio program.

    async with vmpool.connect("/run/vmpool/vmpool.sock") as pool, pool.vm() as vm, vm.exec(["uname", "-a"]) as command:
        async for event in command.events():
            print(event)

Or, with the service where it usually is:

    async with vmpool.connect() as pool, pool.vm("default", environment={"TOKEN": token}) as vm:
        await vm.files.write("/app/a.py", code)
        print((await vm.run("python3 /app/a.py", timeout=10)).stdout)
        async with vm.forward(8000) as address:
            ...

`vmpool.aio` has the same names for asyncio, `vmpool.sync` for plain programs and threads. Errors are `ClientError`s;
what a guest's kernel refuses is an OSError as well: FileNotFoundError, PermissionError.

A pool is one trio object: use it from any number of tasks of the run that opened it. What is opened is open for the
length of an `async with` block. `open_client` is an older way, with the service's calls as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmpool.client.errors import (
    CallError,
    CallTimeoutError,
    ClientError,
    CommandError,
    GuestConnectionRefusedError,
    GuestError,
    GuestFileExistsError,
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestPermissionError,
    GuestProcessNotFoundError,
    GuestTimeoutError,
    OutputTooLargeError,
    ServiceUnavailableError,
    UnsafeTreeError,
)
from vmpool.client.kinds import (
    CircuitState,
    EndReason,
    FileChangeKind,
    FileKind,
    LeaseChangeKind,
    ProducerKind,
    ProfileChangeKind,
    StopReason,
    VmState,
)
from vmpool.client.records import (
    AcquiredVm,
    AcquireTimings,
    Change,
    CommandExit,
    CompletedCommand,
    ConfinementLayer,
    FileChange,
    FileInfo,
    Guest,
    KeptOutput,
    LeaseChange,
    LeaseStatus,
    Match,
    Mismatch,
    Output,
    OutputStream,
    PoolCounters,
    ProcessInfo,
    ProcessOutput,
    ProducerStatus,
    ProfileChange,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    TreeSummary,
    VmChange,
    VmConfig,
    VmMetrics,
)
from vmpool.client.requests import GuestFile, OnEmpty, Terminal, Wishes, WriteMode

if TYPE_CHECKING:
    from vmpool.client.on_trio import Client, PoolWatch, Process, RemoteCommand, open_client
    from vmpool.on_trio import (
        Attachment,
        ByteReader,
        ByteStream,
        DetachedProcess,
        Files,
        FileWatch,
        Forward,
        Pool,
        Vm,
        connect,
        standalone,
    )

__all__ = [
    "AcquireTimings",
    "AcquiredVm",
    "Attachment",
    "ByteReader",
    "ByteStream",
    "CallError",
    "CallTimeoutError",
    "Change",
    "CircuitState",
    "Client",
    "ClientError",
    "CommandError",
    "CommandExit",
    "CompletedCommand",
    "ConfinementLayer",
    "DetachedProcess",
    "EndReason",
    "FileChange",
    "FileChangeKind",
    "FileInfo",
    "FileKind",
    "FileWatch",
    "Files",
    "Forward",
    "Guest",
    "GuestConnectionRefusedError",
    "GuestError",
    "GuestFile",
    "GuestFileExistsError",
    "GuestFileNotFoundError",
    "GuestIsADirectoryError",
    "GuestNotADirectoryError",
    "GuestPermissionError",
    "GuestProcessNotFoundError",
    "GuestTimeoutError",
    "KeptOutput",
    "LeaseChange",
    "LeaseChangeKind",
    "LeaseStatus",
    "Match",
    "Mismatch",
    "OnEmpty",
    "Output",
    "OutputStream",
    "OutputTooLargeError",
    "Pool",
    "PoolCounters",
    "PoolWatch",
    "Process",
    "ProcessInfo",
    "ProcessOutput",
    "ProducerKind",
    "ProducerStatus",
    "ProfileChange",
    "ProfileChangeKind",
    "ProfileStatus",
    "RemoteCommand",
    "ServiceStatus",
    "ServiceUnavailableError",
    "Snapshot",
    "StopReason",
    "Terminal",
    "TreeSummary",
    "UnsafeTreeError",
    "Vm",
    "VmChange",
    "VmConfig",
    "VmMetrics",
    "VmState",
    "Wishes",
    "WriteMode",
    "connect",
    "open_client",
    "standalone",
]

_CALLS = frozenset(["Client", "PoolWatch", "Process", "RemoteCommand", "open_client"])
_POOL = frozenset(
    [
        "Attachment",
        "ByteReader",
        "ByteStream",
        "DetachedProcess",
        "Files",
        "FileWatch",
        "Forward",
        "Pool",
        "Vm",
        "connect",
        "standalone",
    ]
)


if not TYPE_CHECKING:  # or type checkers would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """What is for trio is imported when it is first used: `vmpool.aio` and `vmpool.sync` do without."""
        if name in _CALLS:
            from vmpool.client import on_trio as face
        elif name in _POOL:
            from vmpool import on_trio as face
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(face, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
