"""The VMs' records on disk: `<vm_id>/vm.json` exists if and only if that VM may be adopted.

`<vm_id>/given-away` exists if the VM may have been given away: then no run of the service ends it.

A record is replaced whole or not at all: written to a file beside it, synced, renamed, and the directory synced. After
a crash, at any point, a reader finds the old record or the new one.
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
    """A record could not be written or erased. The record on disk is unchanged."""

    def __init__(self, *, vm_id: str, what: str, reason: str) -> None:
        super().__init__(f"the record of {vm_id} cannot be {what}: {reason}")
        self.vm_id = vm_id
        self.what = what
        self.reason = reason


class HomeGoneError(JournalError):
    """The VM's directory itself is gone, so that no later run of the service can find the VM."""


def _of_disk(error: OSError) -> str:
    return f"{error}; check that the runtime directory has space and is writable"


@attrs.frozen(kw_only=True)
class Recorded:
    """A VM that may be adopted, if its process still runs."""

    vm_id: str
    record: VmRecord


@attrs.frozen(kw_only=True)
class Unusable:
    """A VM whose record cannot be used."""

    vm_id: str
    reason: str


@attrs.frozen(kw_only=True)
class Unrecorded:
    """A VM's directory without a record: it was being made, handed out or stopped."""

    vm_id: str


@attrs.frozen(kw_only=True)
class GivenAway:
    """A VM that was or may have been given away: the service does not end it."""

    vm_id: str


Found = Recorded | Unusable | Unrecorded | GivenAway


def boottime_ns() -> int:
    """The host's CLOCK_BOOTTIME: it goes on while the service is stopped, ends with every VM, and cannot be set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def host_boot_id() -> str:
    """Changes with each boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@attrs.frozen(kw_only=True)
class Journal:
    """The records of all VMs of one service. Every call blocks for as long as the file system takes: tens of
    microseconds on tmpfs. One service at a time may use a directory.
    """

    directory: Path
    """Has one directory per VM, which the journal neither makes nor removes."""
    backend: BackendKind = BackendKind.QEMU
    """The service's backend; VMs of another one are not adopted."""
    disk: Disk = attrs.field(factory=HostDisk)
    boot_id: str = attrs.field(factory=host_boot_id)
    now_ns: Callable[[], int] = boottime_ns

    def write(self, record: VmRecord) -> None:
        """Writes or replaces a VM's record. Raises JournalError; HomeGoneError if the VM's directory is gone."""
        home = self.directory / record.vm_id
        try:
            data = encode(record)
            try:
                self.disk.write(home / _NEW_NAME, data)
            except OSError:
                with contextlib.suppress(OSError):  # a full disk needs its space
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
        """Removes a VM's record. Idempotent. Raises JournalError."""
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
        """An error is logged and not raised: the change is made, and only a crash of the host could undo it, after
        which no record is valid anyway.
        """
        try:
            self.disk.sync_directory(home)
        except FileNotFoundError:
            pass  # the directory is gone, and the record with it
        except OSError as error:
            _log.warning("a change of a record is not synced", vm=home.name, error=str(error))

    def offer(self, vm_id: str) -> None:
        """Marks a VM that has no record as given away, before its taker learns of it. Raises JournalError."""
        home = self.directory / vm_id
        try:
            self.disk.write(home / GIVEN_AWAY_NAME, b"")
            self.disk.sync_directory(home)
        except OSError as error:
            raise JournalError(vm_id=vm_id, what="marked as given away", reason=_of_disk(error)) from error

    def withdraw(self, vm_id: str) -> None:
        """Takes back an offer that reached no taker. Idempotent. Raises JournalError."""
        self._remove(vm_id, GIVEN_AWAY_NAME)

    def read_all(self) -> tuple[Found, ...]:
        """Every VM directory and its record, sorted by VM id. Raises OSError if the runtime directory is unreadable."""
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
            return Unusable(vm_id=vm_id, reason=f"vm_id: {record.vm_id!r:.80} is not the VM of this directory")
        if record.backend is not self.backend:
            reason = f"backend: the record has {record.backend.value!r}, this service {self.backend.value!r}"
            return Unusable(vm_id=vm_id, reason=reason)
        if record.boot_id != self.boot_id:
            return Unusable(vm_id=vm_id, reason="boot_id: the host was rebooted since; the VM's process is gone")
        return Recorded(vm_id=vm_id, record=record)
