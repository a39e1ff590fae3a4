"""A uid for each VM alone, from a range that nobody else has.

The kernel keeps the books: a uid is free when no process has it. So it is whoever started the process, however that
ended, and whatever became of our records; a VM that is adopted or given away keeps its own.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from vmm.errors import ConfinementError, LockHeldError
from vmm.lock import take_lock

DEFAULT_FIRST: Final = 1_900_000_000
DEFAULT_COUNT: Final = 65_536
"""Systemd's list of uids has the range from 1,879,048,192 up to 2,147,352,575 as unused (systemd's UIDS-GIDS.md)."""

MAX_UID: Final = 2**32 - 2
"""The number above it is no one."""

_RANGE: Final = re.compile(r"(\d{1,10})-(\d{1,10})")

SUBORDINATE_FILES: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
"""Ranges that users may have in user namespaces of theirs (subuid(5))."""

LOCKS: Final = Path("/run/vmpool-uids")
"""Two services may have the same range. A uid is locked from its choice until a process has it."""


@attrs.frozen(kw_only=True)
class UidRange:
    """Numbers for users and, the same, for their groups."""

    first: int = DEFAULT_FIRST
    last: int = DEFAULT_FIRST + DEFAULT_COUNT - 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


def structure_range(value: Any, _: Any) -> UidRange:
    """For cattrs: "FIRST-LAST". Raises TypeError, ValueError."""
    if not isinstance(value, str):
        raise TypeError(f'must be a range like "{UidRange()}", not {value!r}')
    found = _RANGE.fullmatch(value)
    if found is None:
        raise ValueError(f'must be a range like "{UidRange()}", not {value!r}')
    first, last = map(int, found.groups())
    if not 1 <= first <= last <= MAX_UID:
        raise ValueError(f"must go upwards, between 1 and {MAX_UID}, not {value!r}")
    return UidRange(first=first, last=last)


def obstacle(uids: UidRange) -> str:
    """Who has some of these already, or why we cannot have them; empty if they are free for us. Blocks for some ms."""
    for entry in pwd.getpwall():
        if entry.pw_uid in uids:
            return f"uid {entry.pw_uid} is the user {entry.pw_name}'s"
    for group in grp.getgrall():
        if group.gr_gid in uids:
            return f"gid {group.gr_gid} is the group {group.gr_name}"
    for path in SUBORDINATE_FILES:
        with contextlib.suppress(FileNotFoundError):
            if owner := _subordinate_to(path.read_text(encoding="utf-8", errors="replace"), uids):
                return f"{path} gives some of them to {owner}"
    if not os.access(LOCKS if LOCKS.exists() else LOCKS.parent, os.W_OK | os.X_OK):
        return f"{LOCKS}, where they are locked, is not writable"
    for name in ("uid_map", "gid_map"):
        if not _is_mapped(Path(f"/proc/self/{name}").read_text(encoding="ascii"), uids):
            return f"they are not in this user namespace (/proc/self/{name})"
    return ""


def _subordinate_to(text: str, uids: UidRange) -> str:
    for line in text.splitlines():
        owner, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if first.isdigit() and count.isdigit() and _overlap(int(first), int(count), uids):
            return owner
    return ""


def _overlap(first: int, count: int, uids: UidRange) -> bool:
    return first <= uids.last and uids.first < first + count


def _is_mapped(text: str, uids: UidRange) -> bool:
    ranges = [(int(first), int(count)) for first, _, count in map(str.split, text.splitlines())]
    return any(first <= uids.first and uids.last < first + count for first, count in ranges)


@attrs.define(eq=False)
class UidPool:
    """For one service."""

    range: UidRange
    _locks: Path = LOCKS
    _random: random.Random = attrs.field(factory=random.SystemRandom)

    @contextlib.contextmanager
    def take(self) -> Iterator[int]:
        """A uid that no process has; within the block nobody else takes it. Raises ConfinementError, OSError.

        A process must have it when the block ends; from then on it is taken until that one is dead, and waited for.
        """
        with contextlib.ExitStack() as held:
            yield next(uid for uid in self._candidates() if not is_in_use(uid) and self._lock(uid, held))

    def _candidates(self) -> Iterable[int]:
        """All, from some place on: what was free last is not the first to be taken again."""
        first, last = self.range.first, self.range.last
        start = self._random.randint(first, last)
        yield from range(start, last + 1)
        yield from range(first, start)
        raise ConfinementError(
            what="service.qemu_uids",
            reason=f"a process has each of {self.range}",
            remedy="end VMs, or make the range larger",
        )

    def _lock(self, uid: int, held: contextlib.ExitStack) -> bool:
        while True:
            with contextlib.suppress(FileExistsError):
                self._locks.mkdir(mode=0o700)
            try:
                take_lock(self._locks / str(uid), held)
            except LockHeldError:
                return False
            except FileNotFoundError:
                continue  # another service, which ended, has just removed the directory
            return not is_in_use(uid)

    def close(self) -> None:
        """Leaves nothing behind, unless another service has something there. Idempotent."""
        with contextlib.suppress(OSError):
            self._locks.rmdir()


def is_in_use(uid: int) -> bool:
    """Whether a process has that real uid; a dead one has, until somebody has waited for it. See getpriority(2)."""
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True
