"""One VM's record on disk, kept in step with the VM's life."""

from __future__ import annotations

import attrs
import structlog

from actors.journal import HomeGoneError, Journal, JournalError
from actors.producer import BaseVm
from actors.record import LeaseRecord, VmRecord, expiry_ns

_log = structlog.get_logger("vmpool.vm")


@attrs.define(eq=False, kw_only=True)
class RecordKeeping:
    """The VM's record is on disk if and only if a later run of the service may adopt the VM: while the VM is READY or
    LEASED, and from before either is reported. A VM that is given away has no record but a mark, so that no run ends
    it. A VM whose directory was removed has no record after its next hand-out or renewal.
    """

    vm_id: str
    journal: Journal
    record: VmRecord | None = attrs.field(repr=False)
    """The record on disk; None if the VM has none."""
    _unrecorded: bool = attrs.field(default=False, init=False)
    """The VM is leased, and its directory is gone."""
    offered: bool = attrs.field(default=False, init=False)
    """The mark is on disk."""
    disowned: bool = attrs.field(default=False, init=False)
    """The VM belongs to its taker."""

    def write_base(self, base: BaseVm, *, profile: str) -> None:
        """Lets the VM be adopted as a base VM. Raises JournalError."""
        record = VmRecord(
            vm_id=self.vm_id,
            profile=profile,
            generation=base.generation,
            made_by=base.made_by,
            backend=self.journal.backend,
            process=base.vm.identity,
            boot_id=self.journal.boot_id,
            made_at_ns=self.journal.now_ns(),
            lease=None,
        )
        self._write(record)

    def withdraw(self) -> VmRecord:
        """Erases and returns the record: after a crash, a VM in hand-out has no owner. Raises JournalError."""
        record = self.record
        assert record is not None
        self.journal.erase(self.vm_id)
        self.record = None
        return record

    def write_leased(self, record: VmRecord, lease: LeaseRecord) -> None:
        """Lets the VM be adopted with its lease. Raises JournalError, but not if the VM's directory was removed: the VM
        runs, and is not to be lost for that.
        """
        try:
            self._write(attrs.evolve(record, lease=lease))
        except HomeGoneError as error:
            self.record = None
            self._unrecorded = True
            _log.warning(
                "VM leased without a record; no later run of the service will adopt it", vm=self.vm_id, error=str(error)
            )

    def renew(self, expires_in_s: float) -> bool:
        """Records the lease's new expiry. False if the VM has no lease or the write failed; true without a write if the
        VM's directory is gone, because no later run can adopt the VM.
        """
        if self._unrecorded:
            return True
        record = self.record
        if record is None or record.lease is None:
            return False
        expires_at_ns = expiry_ns(now_ns=self.journal.now_ns(), expires_in_s=expires_in_s)
        try:
            self.write_leased(record, attrs.evolve(record.lease, expires_at_ns=expires_at_ns))
        except JournalError as error:
            _log.warning("renewal not recorded", vm=self.vm_id, error=str(error))
            return False
        return True

    def offer(self) -> None:
        """Marks the VM as given away: from here on it may belong to its taker. Raises JournalError."""
        self.offered = True
        self.journal.offer(self.vm_id)

    def disown(self) -> None:
        """Makes the VM its taker's, if it was offered and the offer stands."""
        self.disowned = self.offered

    def erase(self) -> None:
        """Never raises: the VM is ending, and once its process is dead, a record left on disk does no harm."""
        self._unrecorded = False
        if self.record is not None:
            try:
                self.journal.erase(self.vm_id)
            except JournalError as error:
                _log.warning("record not erased", vm=self.vm_id, error=str(error))
            else:
                self.record = None
        if self.offered and not self.disowned:
            try:
                self.journal.withdraw(self.vm_id)
            except JournalError as error:
                _log.warning("mark not removed", vm=self.vm_id, error=str(error))
            else:
                self.offered = False

    def _write(self, record: VmRecord) -> None:
        # In this order: a failed write may have reached the disk.
        self.record = record
        self.journal.write(record)
