"""Users and groups of the guest, as /etc/passwd and /etc/group have them.

Python's `pwd` would ask the C library, which loads whatever /etc/nsswitch.conf names.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWD = "/etc/passwd"  # noqa: S105 - a path
GROUP = "/etc/group"

_MAX_ID = 2**32 - 2
"""The kernel's; one more stands for "unchanged"."""


class UnknownAccountError(OSError):
    """There is no such user or group; `part` is the field of the request that names it."""

    def __init__(self, what: str, name: str, part: str) -> None:
        super().__init__(errno.EINVAL, f"{part}: the guest has no {what} {name!r}")
        self.part = part


class Account:
    """A user: numbers, and what programs of it find in their environment."""

    __slots__ = ("gid", "home", "name", "shell", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str, shell: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home
        self.shell = shell


ROOT = Account("root", 0, 0, "/root", "/bin/sh")
"""Also where /etc/passwd is missing."""


def find_user(user: str, *, part: str = "user", path: str = PASSWD) -> Account:
    """The user of this name or number; empty for root. A number without a name has a group of the same number.

    Raises UnknownAccountError.
    """
    if not user:
        return ROOT
    number = _number(user)
    by_number = None
    for name, uid, gid, home, shell in _users(path):
        if name == user:
            return Account(name, uid, gid, home, shell)
        if uid == number and by_number is None:
            by_number = Account(name, uid, gid, home, shell)
    if by_number is not None:
        return by_number
    if user == ROOT.name or number == 0:
        return ROOT
    if number is None:
        raise UnknownAccountError("user", user, part)
    return Account("", number, number, "/", "/bin/sh")


def find_group(group: str, *, part: str = "group", path: str = GROUP) -> int:
    """The number of the group of this name or number. Raises UnknownAccountError."""
    for name, gid, _ in _groups(path):
        if name == group:
            return gid
    number = _number(group)
    if number is None:
        raise UnknownAccountError("group", group, part)
    return number


def groups_of(account: Account, *, path: str = GROUP) -> list[int]:
    """The numbers of all groups of the user, its primary one first."""
    others = {gid for _, gid, members in _groups(path) if account.name and account.name in members}
    return [account.gid, *sorted(others - {account.gid})]


def user_names(*, path: str = PASSWD) -> dict[int, str]:
    """The name of each number; the first one, if there are several."""
    return {uid: name for name, uid, *_ in reversed(list(_users(path)))}


def group_names(*, path: str = GROUP) -> dict[int, str]:
    """As `user_names`."""
    return {gid: name for name, gid, _ in reversed(list(_groups(path)))}


def _number(text: str) -> int | None:
    # `isdecimal` alone would take the digits of every script.
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None
    return number if number is not None and number <= _MAX_ID else None


def _users(path: str) -> Iterator[tuple[str, int, int, str, str]]:
    for name, _, uid, gid, _, home, shell in _lines(path, 7):
        numbers = _number(uid), _number(gid)
        if numbers[0] is not None and numbers[1] is not None:
            yield name, numbers[0], numbers[1], home or "/", shell or "/bin/sh"


def _groups(path: str) -> Iterator[tuple[str, int, list[str]]]:
    for name, _, gid, members in _lines(path, 4):
        number = _number(gid)
        if number is not None:
            yield name, number, members.split(",")


def _lines(path: str, fields: int) -> Iterator[list[str]]:
    """The lines with so many fields; others are skipped, as the C library does. None if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        parts = line.split(":")
        if len(parts) == fields and parts[0] and not line.startswith("#"):
            yield parts
