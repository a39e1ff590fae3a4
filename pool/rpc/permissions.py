"""What not everybody may who may call."""

from __future__ import annotations

import attrs

from pool.rpc.peer import Caller, default_uids


@attrs.frozen(kw_only=True)
class Permitted:
    """Who may do a thing: these users, and members of these groups."""

    uids: frozenset[int] = attrs.field(factory=default_uids)
    gids: frozenset[int] = frozenset()

    def permits(self, caller: Caller) -> bool:
        return caller.uid in self.uids or not self.gids.isdisjoint({caller.gid} | caller.groups)
