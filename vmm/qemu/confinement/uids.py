"""A uid for each VM alone, from a range that has no other user.

The kernel keeps the books: a uid is free when no process has it. That holds whatever service started the process,
however it ended, and even if records are lost; a VM that is adopted or given away keeps its uid.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from vmm.errors import ConfinementError
from vmm.lock import is_still
from vmm.words.confinement import UidRange

SUBORDINATE_FILES: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
"""Ranges that users may have in their own user namespaces (subuid(5))."""

LOCKS: Final = Path("/run/vmpool-uids")
"""Two services may share a range. A uid is locked from its choice until a process has it."""


def obstacle(uids: UidRange) -> str:
    """Why the service cannot use these uids; empty if it can. Blocks for some ms."""
    for entry in pwd.getpwall():
        if entry.pw_uid in uids:
            return f"uid {entry.pw_uid} belongs to the user {entry.pw_name}"
    for group in grp.getgrall():
        if group.gr_gid in uids:
            return f"gid {group.gr_gid} belongs to the group {group.gr_name}"
    for path in SUBORDINATE_FILES:
        with contextlib.suppress(FileNotFoundError):
            if owner := _subordinate_to(path.read_text(encoding="utf-8", errors="replace"), uids):
                return f"{path} gives some of them to {owner}"
    if not os.access(LOCKS if LOCKS.exists() else LOCKS.parent, os.W_OK | os.X_OK):
        return f"{LOCKS}, which holds their locks, is not writable"
    for name in ("uid_map", "gid_map"):
        if not _is_mapped(Path(f"/proc/self/{name}").read_text(encoding="ascii"), uids):
            return f"they are not mapped in this user namespace (/proc/self/{name})"
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
    """The uids of one service; its owner closes it."""

    range: UidRange
    _directory: Path = LOCKS
    _random: random.Random = attrs.field(factory=random.SystemRandom)
    _file: int | None = attrs.field(default=None, init=False)
    _held: set[int] = attrs.field(factory=set, init=False)
    """Uids locked by this pool; the file does not show a process its own locks."""

    @contextlib.contextmanager
    def take(self) -> Iterator[int]:
        """A uid that no process has, locked within the block. Raises ConfinementError, OSError.

        A process must have it when the block ends; from then on the uid is in use until that process is dead and
        reaped.
        """
        uid = next(uid for uid in self._candidates() if not is_in_use(uid) and self._lock(uid))
        try:
            yield uid
        finally:
            self._unlock(uid)

    def close(self) -> None:
        """Removes the lock file, unless another service uses it. Idempotent."""
        if self._file is None:
            return
        try:
            # The only user of the file: a service that opens it now sees that it is gone, and makes a new one.
            if _set_lock(self._file, fcntl.F_WRLCK, first=0, count=0) and is_still(self._file, self._path):
                self._path.unlink()
                with contextlib.suppress(OSError):  # another service has just come
                    self._directory.rmdir()
        finally:
            os.close(self._file)
            self._file = None

    def _candidates(self) -> Iterable[int]:
        """All uids, from a random start, so that a uid that was just freed is not the first to be reused."""
        first, last = self.range.first, self.range.last
        start = self._random.randint(first, last)
        yield from range(start, last + 1)
        yield from range(first, start)
        raise ConfinementError(
            what="service.qemu_uids",
            reason=f"all of {self.range} are in use",
            remedy="end VMs, or make the range larger",
        )

    @property
    def _path(self) -> Path:
        return self._directory / "lock"

    def _lock(self, uid: int) -> bool:
        """Locks the uid's byte of the file, then checks the uid again: another service may just have used it."""
        if uid in self._held:
            return False
        while True:
            file = self._opened()
            if not _set_lock(file, fcntl.F_WRLCK, first=uid, count=1):
                return False
            if is_still(file, self._path):
                break
            os.close(file)
            self._file = None
        self._held.add(uid)
        if is_in_use(uid):
            self._unlock(uid)
            return False
        return True

    def _unlock(self, uid: int) -> None:
        self._held.discard(uid)
        if self._file is not None:
            _set_lock(self._file, fcntl.F_UNLCK, first=uid, count=1)

    def _opened(self) -> int:
        while self._file is None:
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir(mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with contextlib.suppress(FileNotFoundError):  # another service, which ended, has just removed it
                self._file = os.open(self._path, flags, 0o600)
        return self._file


def _set_lock(file: int, kind: int, *, first: int, count: int) -> bool:
    """False if another process holds a part. `count` 0 is to the end; see fcntl(2) on open file description locks."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", kind, os.SEEK_SET, first, count, 0))
    except BlockingIOError:
        return False
    return True


def is_in_use(uid: int) -> bool:
    """Whether a process has that real uid; a dead one has it until it is reaped. See getpriority(2)."""
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True
