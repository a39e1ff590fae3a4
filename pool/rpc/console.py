"""Pool.Console: the end of a VM's console output."""

from __future__ import annotations

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.rpc.admin import asker
from pool.rpc.calls import ServerStream, receive_only, reply_long
from pool.rpc.convert import vm_id_of
from vmpool.wire.generated.vmpool import v1 as wire


async def answer_console(stream: ServerStream, *, coordinator: Coordinator, owner: Owner, service_uid: int) -> None:
    """Administrators may read every console."""
    vm_id = vm_id_of(await receive_only(stream))
    text = await coordinator.console(vm_id, owner=asker(owner, service_uid=service_uid))
    await reply_long(stream, wire.ConsoleReply(text=text))
