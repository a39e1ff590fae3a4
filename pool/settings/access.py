"""The `[access]` table: the users and groups of the host that may call."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable
from typing import Any, Final

import attrs

from pool.settings.permissions import Permitted, default_uids
from vmm.accounts import Account

MAX_ID: Final = 2**32 - 2
"""Of users and groups; the number above it is invalid."""


def structure_account(value: Any, _: Any) -> Account:
    """For cattrs. A number need not be known to the host; that a name is not is reported by `problems`."""
    if (isinstance(value, str) and "\0" not in value) or (type(value) is int and 0 <= value <= MAX_ID):
        return value
    raise TypeError(f"must be a name or a number, not {value!r}")


@attrs.frozen(kw_only=True)
class CustomMachineSettings:
    """The `[access.custom_machines]` table: callers that may describe a machine instead of naming a profile."""

    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()


@attrs.frozen(kw_only=True)
class AccessSettings:
    """The `[access]` table. Root and the service's user may always call."""

    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()
    """Primary or supplementary."""
    socket_group: Account | None = None
    """The group that can reach the socket. None: only root and the service's user can."""
    custom_machines: CustomMachineSettings = attrs.field(factory=CustomMachineSettings)

    def problems(self) -> list[str]:
        """One message for each error, with its key."""
        problems = []
        for table, admitted in (("access", self), ("access.custom_machines", self.custom_machines)):
            unknown = (user for user in admitted.users if _uid(user) is None)
            problems += [f"{table}.users: there is no user {user!r}" for user in unknown]
            unknown = (group for group in admitted.groups if _gid(group) is None)
            problems += [f"{table}.groups: there is no group {group!r}" for group in unknown]
        if self.socket_group is not None and _gid(self.socket_group) is None:
            problems.append(f"access.socket_group: there is no group {self.socket_group!r}")
        admits = bool(self.users or self.groups)
        if admits and self.socket_group is None:
            problems.append(
                "access.socket_group: is not set, so only root and the service's user reach the socket; set it"
            )
        if self.socket_group is not None and not admits:
            problems.append("access.socket_group: its members reach the socket but may not call; set users or groups")
        return problems

    @property
    def uids(self) -> frozenset[int]:
        return _uids(self.users)

    @property
    def gids(self) -> frozenset[int]:
        return _gids(self.groups)

    @property
    def may_describe_machines(self) -> Permitted:
        return Permitted(uids=_uids(self.custom_machines.users), gids=_gids(self.custom_machines.groups))

    @property
    def socket_gid(self) -> int | None:
        return None if self.socket_group is None else _gid(self.socket_group)


def _uids(users: Iterable[Account]) -> frozenset[int]:
    return default_uids() | {uid for user in users if (uid := _uid(user)) is not None}


def _gids(groups: Iterable[Account]) -> frozenset[int]:
    return frozenset(gid for group in groups if (gid := _gid(group)) is not None)


def _uid(user: Account) -> int | None:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _gid(group: Account) -> int | None:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
