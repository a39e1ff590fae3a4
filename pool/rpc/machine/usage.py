"""Pool.VmMetrics: what a leased VM uses."""

from __future__ import annotations

from collections.abc import MutableMapping
from weakref import WeakKeyDictionary

import attrs

from pool.rpc.calls import ServerStream, receive_only, reply
from pool.rpc.leases import lease_id_of
from pool.rpc.machine.guests import Guests
from pool.rpc.machine.statuses import USAGE
from pool.rpc.peer import current_owner
from vmm.contract import Agent
from vmm.words.usage import Usage
from vmpool.wire.generated.vmpool import v1 as wire


@attrs.frozen(kw_only=True, eq=False)
class UsageCalls:
    """Answers the calls. Of each VM it knows the CPU times of the last one, as long as the VM lives."""

    guests: Guests
    _last: MutableMapping[Agent, Usage] = attrs.field(factory=WeakKeyDictionary, init=False)

    async def answer(self, stream: ServerStream) -> None:
        lease_id = lease_id_of((await receive_only(stream)).lease_id)
        async with self.guests.of(lease_id, owner=current_owner(), statuses=USAGE) as guest:
            usage = await guest.agent.usage()
        before, self._last[guest.agent] = self._last.get(guest.agent), usage
        await reply(stream, _message(usage, cpu_share=busy_share(usage, since=before)))


def busy_share(now: Usage, *, since: Usage | None) -> float:
    """Of all CPU time between two answers of a guest, or since it booted; 0 to 1, whatever the guest says."""
    busy = now.cpu_busy_ms - (since.cpu_busy_ms if since else 0)
    idle = now.cpu_idle_ms - (since.cpu_idle_ms if since else 0)
    busy, idle = max(0, busy), max(0, idle)
    return busy / (busy + idle) if busy else 0.0


def _message(usage: Usage, *, cpu_share: float) -> wire.VmMetricsReply:
    return wire.VmMetricsReply(**attrs.asdict(usage), cpu_share=cpu_share)
