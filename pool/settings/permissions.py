"""The identity of a caller, and permissions by uid and gid."""

from __future__ import annotations

import os

import attrs


@attrs.frozen(kw_only=True)
class Caller:
    """The peer's credentials, as the kernel recorded them when the client connected."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary ones."""


def default_uids() -> frozenset[int]:
    """Root, and the user the service runs as."""
    return frozenset({0, os.geteuid()})


@attrs.frozen(kw_only=True)
class Permitted:
    """A permission for these users and for members of these groups."""

    uids: frozenset[int] = attrs.field(factory=default_uids)
    gids: frozenset[int] = frozenset()

    def permits(self, caller: Caller) -> bool:
        return caller.uid in self.uids or not self.gids.isdisjoint({caller.gid} | caller.groups)
