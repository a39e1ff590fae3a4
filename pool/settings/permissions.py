"""Who calls, and what not everybody may who may call."""

from __future__ import annotations

import os

import attrs


@attrs.frozen(kw_only=True)
class Caller:
    """As the kernel noted it when the client connected."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary ones."""


def default_uids() -> frozenset[int]:
    """Root, and the user the service runs as."""
    return frozenset({0, os.geteuid()})


@attrs.frozen(kw_only=True)
class Permitted:
    """Who may do a thing: these users, and members of these groups."""

    uids: frozenset[int] = attrs.field(factory=default_uids)
    gids: frozenset[int] = frozenset()

    def permits(self, caller: Caller) -> bool:
        return caller.uid in self.uids or not self.gids.isdisjoint({caller.gid} | caller.groups)
