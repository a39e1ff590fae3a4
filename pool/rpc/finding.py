"""Pool.GetLease and Pool.ListLeases: a user's processes find each other's leases."""

from __future__ import annotations

import trio

from pool.core.coordinator import Coordinator
from pool.ledger.records import Lease, Owner
from pool.rpc.admin import asker
from pool.rpc.calls import ServerStream, receive_only, reply, reply_long
from pool.rpc.errors import InvalidRequestError
from pool.rpc.leases import labels_of, lease_id_of, lease_message, lease_name_of, lease_status
from vmpool.wire.generated.vmpool import v1 as wire


async def answer_get_lease(stream: ServerStream, *, coordinator: Coordinator, owner: Owner, service_uid: int) -> None:
    """By id, administrators may get every lease; by name, a caller's own only, since names are per user."""
    lease = _find(await receive_only(stream), coordinator=coordinator, owner=owner, service_uid=service_uid)
    await reply(stream, wire.GetLeaseReply(lease=lease_message(lease, now=trio.current_time())))


def _find(request: wire.GetLeaseRequest, *, coordinator: Coordinator, owner: Owner, service_uid: int) -> Lease:
    if (request.lease_id is None) == (request.name is None):
        found = "is not set" if request.name is None else "has lease_id and name"
        raise InvalidRequestError(field="which", reason=f"{found}; set either lease_id or name")
    if request.name is not None:
        return coordinator.find_lease(name=lease_name_of(request.name), owner=owner)
    return coordinator.find_lease(
        lease_id=lease_id_of(request.lease_id or ""), owner=asker(owner, service_uid=service_uid)
    )


async def answer_list_leases(stream: ServerStream, *, coordinator: Coordinator, owner: Owner) -> None:
    wanted = labels_of((await receive_only(stream)).labels).items()
    now = trio.current_time()
    found = (
        lease
        for lease in coordinator.leases()
        if owner.may_touch(lease.owner) and wanted <= lease.request.labels.items()
    )
    oldest_first = sorted(found, key=lambda lease: lease.granted_at)
    await reply_long(stream, wire.ListLeasesReply(leases=[lease_status(lease, now=now) for lease in oldest_first]))
