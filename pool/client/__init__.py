"""The SDK: vmpool from a trio program.

    async with open_client("/run/vmpool/vmpool.sock") as client:
        async with client.lease() as vm, client.exec(vm.lease_id, ["uname", "-a"]) as command:
            async for event in command.events():
                print(event)

Errors are `ClientError`s. A client is one trio object: use it from any number of tasks of the run that opened it.
"""

from actors.messages import GuestFile, Wishes
from pool.client.errors import CallError, ClientError, ServiceUnavailableError
from pool.client.records import (
    AcquiredVm,
    AcquireTimings,
    Change,
    CompletedCommand,
    ConfinementLayer,
    Guest,
    LeaseChange,
    LeaseStatus,
    Match,
    Mismatch,
    PoolCounters,
    ProducerStatus,
    ProfileChange,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    VmChange,
    VmConfig,
)
from pool.client.remote import RemoteCommand
from pool.client.sdk import Client, open_client
from pool.ledger.policy import OnEmpty

__all__ = [
    "AcquireTimings",
    "AcquiredVm",
    "CallError",
    "Change",
    "Client",
    "ClientError",
    "CompletedCommand",
    "ConfinementLayer",
    "Guest",
    "GuestFile",
    "LeaseChange",
    "LeaseStatus",
    "Match",
    "Mismatch",
    "OnEmpty",
    "PoolCounters",
    "ProducerStatus",
    "ProfileChange",
    "ProfileStatus",
    "RemoteCommand",
    "ServiceStatus",
    "ServiceUnavailableError",
    "Snapshot",
    "VmChange",
    "VmConfig",
    "Wishes",
    "open_client",
]
