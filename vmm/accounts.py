"""The host's accounts that VMs may run as, as settings name them."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from typing import Final

from vmm.errors import ConfinementError
from vmm.words.confinement import AUTO_USER

Account = str | int
"""A user's name or uid."""

KEEP: Final = frozenset({"", "root", 0})
"""Settings that leave VMs the service's user."""

Lookup = Callable[[Account], pwd.struct_passwd]
"""Raises KeyError."""


def look_up(account: Account) -> pwd.struct_passwd:
    """The host's account of that name or number. Raises KeyError."""
    return pwd.getpwuid(account) if isinstance(account, int) else pwd.getpwnam(account)


def named_account(setting: Account, *, euid: int, lookup: Lookup = look_up) -> pwd.struct_passwd:
    """The account that VMs are to run as. Raises ConfinementError if it does not exist or `euid` may not use it."""
    try:
        entry = lookup(setting)
    except KeyError:
        raise ConfinementError(
            what="service.qemu_user",
            reason=f"there is no user {setting!r}",
            remedy="create it, or name another",
        ) from None
    if euid != 0 and entry.pw_uid not in (0, euid):
        raise ConfinementError(
            what="service.qemu_user",
            reason=f"only root can start QEMU as another user ({entry.pw_name})",
            remedy='leave it at "auto", or run the service as that user',
        )
    return entry


def check_account(setting: Account, *, euid: int) -> None:
    """Raises ConfinementError if the setting names an account that does not exist or that `euid` may not use."""
    if setting != AUTO_USER and setting not in KEEP:
        named_account(setting, euid=euid)
