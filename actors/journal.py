"""The VMs' records on disk: `<vm_id>/vm.json` is there if and only if that VM may be adopted.

`<vm_id>/given-away` is there if it may be somebody else's: then no run of the service ends it.

A record is replaced whole or not at all: written to a file beside it, synced, renamed, and the directory synced. So
whoever reads after a crash, at whatever point, finds the record from before it or from after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import structlog

from actors.disk import Disk, HostDisk
from actors.record import VmRecord
from actors.records.codec import MAX_RECORD_BYTES, decode, encode
from actors.records.strict import RecordError
from vmm.words.kinds import BackendKind

_log = structlog.get_logger("vmpool.journal")

RECORD_NAME: Final = "vm.json"
GIVEN_AWAY_NAME: Final = "given-away"
_NEW_NAME: Final = "vm.json.new"


class JournalError(Exception):
    """A record could not be written or erased. What is on disk is as it was."""

    def __init__(self, *, vm_id: str, what: str, reason: str) -> None:
        super().__init__(f"the record of {vm_id} cannot be {what}: {reason}")
        self.vm_id = vm_id
        self.what = what
        self.reason = reason


class HomeGoneError(JournalError):
    """The VM's directory itself is gone, with all that a later run of the service could know of the VM."""


def _of_disk(error: OSError) -> str:
    return f"{error}; see that the runtime directory has room and is writable"


@attrs.frozen(kw_only=True)
class Recorded:
    """A VM that may be adopted, if its process is still there."""

    vm_id: str
    record: VmRecord


@attrs.frozen(kw_only=True)
class Unusable:
    """There is a record, and it says nothing that can be relied on."""

    vm_id: str
    reason: str


@attrs.frozen(kw_only=True)
class Unrecorded:
    """A VM's directory without a record: it was being made, handed out or stopped."""

    vm_id: str


@attrs.frozen(kw_only=True)
class GivenAway:
    """The VM is somebody else's, or may be: it is not for the service to end."""

    vm_id: str


Found = Recorded | Unusable | Unrecorded | GivenAway


def boottime_ns() -> int:
    """The host's CLOCK_BOOTTIME: it outlives the service, no VM outlives it, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def host_boot_id() -> str:
    """Another one after each boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@attrs.frozen(kw_only=True)
class Journal:
    """The records of all VMs of one service. Every call blocks for some tens of microseconds on tmpfs, and no longer
    than the file system takes elsewhere. One service at a time may use a directory.
    """

    directory: Path
    """In which each VM has a directory of its own, which others make and remove."""
    backend: BackendKind = BackendKind.QEMU
    """Of the service; the VMs of another one are not for it to adopt."""
    disk: Disk = attrs.field(factory=HostDisk)
    boot_id: str = attrs.field(factory=host_boot_id)
    now_ns: Callable[[], int] = boottime_ns

    def write(self, record: VmRecord) -> None:
        """Puts a record in the place of whatever is there. Raises JournalError, of those HomeGoneError where there is
        no directory to put it into.
        """
        home = self.directory / record.vm_id
        try:
            data = encode(record)
            try:
                self.disk.write(home / _NEW_NAME, data)
            except OSError:
                with contextlib.suppress(OSError):  # it takes room, and may be why there is none
                    self.disk.unlink(home / _NEW_NAME)
                raise
            self.disk.rename(home / _NEW_NAME, home / RECORD_NAME)
        except RecordError as error:
            raise JournalError(vm_id=record.vm_id, what="written", reason=str(error)) from error
        except OSError as error:
            gone = isinstance(error, FileNotFoundError) and not self.disk.exists(home)
            kind = HomeGoneError if gone else JournalError
            raise kind(vm_id=record.vm_id, what="written", reason=_of_disk(error)) from error
        self._sync(home)

    def erase(self, vm_id: str) -> None:
        """Sees to it that there is no record. Idempotent. Raises JournalError."""
        self._remove(vm_id, RECORD_NAME)

    def _remove(self, vm_id: str, name: str) -> None:
        home = self.directory / vm_id
        try:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(home / name)
        except OSError as error:
            raise JournalError(vm_id=vm_id, what="erased", reason=_of_disk(error)) from error
        self._sync(home)

    def _sync(self, home: Path) -> None:
        """An error here means nothing to the next run of the service: only the host's end could undo what was done,
        and no record outlives that. To whoever asked it must not look as if it had not been done.
        """
        try:
            self.disk.sync_directory(home)
        except FileNotFoundError:
            pass  # the directory has gone, and the record with it
        except OSError as error:
            _log.warning("a change of a record is not synced", vm=home.name, error=str(error))

    def offer(self, vm_id: str) -> None:
        """Marks a VM that has no record as given away, before anybody is told of it. Raises JournalError."""
        home = self.directory / vm_id
        try:
            self.disk.write(home / GIVEN_AWAY_NAME, b"")
            self.disk.sync_directory(home)
        except OSError as error:
            raise JournalError(vm_id=vm_id, what="given up", reason=_of_disk(error)) from error

    def withdraw(self, vm_id: str) -> None:
        """Takes an offer back that reached nobody. Idempotent. Raises JournalError."""
        self._remove(vm_id, GIVEN_AWAY_NAME)

    def read_all(self) -> tuple[Found, ...]:
        """What is there of VMs, by their ids. Raises OSError if the directory itself cannot be read."""
        return tuple(self._read(vm_id) for vm_id in sorted(self.disk.directories(self.directory)))

    def _read(self, vm_id: str) -> Found:
        if self.disk.exists(self.directory / vm_id / GIVEN_AWAY_NAME):
            return GivenAway(vm_id=vm_id)
        try:
            record = decode(self.disk.read(self.directory / vm_id / RECORD_NAME, limit=MAX_RECORD_BYTES + 1))
        except FileNotFoundError:
            return Unrecorded(vm_id=vm_id)
        except (RecordError, OSError) as error:
            return Unusable(vm_id=vm_id, reason=str(error))
        if record.vm_id != vm_id:
            return Unusable(vm_id=vm_id, reason=f"vm_id: is {record.vm_id!r:.80}, in the directory of another VM")
        if record.backend is not self.backend:
            reason = f"backend: is {record.backend.value!r}, and this service's is {self.backend.value!r}"
            return Unusable(vm_id=vm_id, reason=reason)
        if record.boot_id != self.boot_id:
            return Unusable(vm_id=vm_id, reason="boot_id: the host was booted since; no process of then is left")
        return Recorded(vm_id=vm_id, record=record)
