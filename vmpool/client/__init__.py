"""What the SDK is made of: records, errors, the asyncio code below all its faces, and `open_client`, for trio.

    async with open_client("/run/vmpool/vmpool.sock") as client:
        async with client.lease() as vm, client.exec(vm.lease_id, ["uname", "-a"]) as command:
            async for event in command.events():
                print(event)

Errors are `ClientError`s. A client is one trio object: use it from any number of tasks of the run that opened it.
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
    from vmpool.client.on_trio import Client, RemoteCommand, open_client

__all__ = [
    "AcquireTimings",
    "AcquiredVm",
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
    "EndReason",
    "FileChange",
    "FileChangeKind",
    "FileInfo",
    "FileKind",
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
    "PoolCounters",
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
    "VmChange",
    "VmConfig",
    "VmMetrics",
    "VmState",
    "Wishes",
    "WriteMode",
    "open_client",
]

_FOR_TRIO = frozenset(["Client", "RemoteCommand", "open_client"])


if not TYPE_CHECKING:  # or type checkers would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """What is for trio is imported when it is used: asyncio programs do without."""
        if name not in _FOR_TRIO:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from vmpool.client import on_trio

        return getattr(on_trio, name)
