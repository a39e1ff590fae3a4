"""The SDK for asyncio; no trio is imported.

    async with vmpool.aio.connect() as pool, pool.vm("default") as vm:
        print((await vm.run("uname -a")).stdout)

What is opened is open for the length of an `async with` block, or, where there is no block, as in a notebook, until
`aclose()`:

    pool = await vmpool.aio.connect()
    vm = await pool.vm()
    ...
    await vm.aclose()
    await pool.aclose()
"""

from __future__ import annotations

from vmpool.aio.files import ByteReader, Files, FileWatch
from vmpool.aio.pool import Pool, connect
from vmpool.aio.ports import ByteStream, Forward
from vmpool.aio.processes import Attachment, DetachedProcess
from vmpool.aio.standalone import standalone
from vmpool.aio.vm import Vm
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
from vmpool.client.opening import Opening
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
from vmpool.client.remote import Process
from vmpool.client.requests import GuestFile, OnEmpty, Terminal, Wishes, WriteMode
from vmpool.client.sdk import PoolWatch

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
    "Opening",
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
    "standalone",
]
