"""The SDK: vmpool from a trio program.

    async with open_client("/run/vmpool/vmpool.sock") as client:
        async with client.lease() as vm, client.exec(vm.lease_id, ["uname", "-a"]) as command:
            async for event in command.events():
                print(event)

Errors are `ClientError`s. A client is one trio object: use it from any number of tasks of the run that opened it.
"""

from vmpool.client.errors import CallError, ClientError, ServiceUnavailableError
from vmpool.client.kinds import (
    CircuitState,
    EndReason,
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
    Guest,
    LeaseChange,
    LeaseStatus,
    Match,
    Mismatch,
    Output,
    OutputStream,
    PoolCounters,
    ProducerStatus,
    ProfileChange,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    VmChange,
    VmConfig,
)
from vmpool.client.remote import RemoteCommand
from vmpool.client.requests import GuestFile, OnEmpty, Wishes
from vmpool.client.sdk import Client, open_client

__all__ = [
    "AcquireTimings",
    "AcquiredVm",
    "CallError",
    "Change",
    "CircuitState",
    "Client",
    "ClientError",
    "CommandExit",
    "CompletedCommand",
    "ConfinementLayer",
    "EndReason",
    "Guest",
    "GuestFile",
    "LeaseChange",
    "LeaseChangeKind",
    "LeaseStatus",
    "Match",
    "Mismatch",
    "OnEmpty",
    "Output",
    "OutputStream",
    "PoolCounters",
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
    "VmChange",
    "VmConfig",
    "VmState",
    "Wishes",
    "open_client",
]
