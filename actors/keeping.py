"""The keeping of one VM's record: what of it is on disk, at each step of its life."""

from __future__ import annotations

import attrs
import structlog

from actors.journal import HomeGoneError, Journal, JournalError
from actors.producer import BaseVm
from actors.record import LeaseRecord, VmRecord, expiry_ns

_log = structlog.get_logger("vmpool.vm")


@attrs.define(eq=False, kw_only=True)
class RecordKeeping:
    """The VM's record is on disk if and only if a later run of the service may adopt the VM: while it is READY or
    LEASED, and from before that is reported. A VM that is given away has none: a mark says that it is not ours to end.
    Nor has one whose directory somebody removed, once it is handed out or renewed after that.
    """

    vm_id: str
    journal: Journal
    record: VmRecord | None = attrs.field(repr=False)
    """What is on disk."""
    _unrecorded: bool = attrs.field(default=False, init=False)
    """It is leased, and there is no place to record that."""
    offered: bool = attrs.field(default=False, init=False)
    """The mark is on disk."""
    disowned: bool = attrs.field(default=False, init=False)
    """It is its taker's."""

    def write_base(self, base: BaseVm, *, profile: str) -> None:
        """It may be adopted as a base VM. Raises JournalError."""
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
        """It is on its way to somebody, and would be nobody's after a crash. Returns what was on disk of it. Raises
        JournalError.
        """
        record = self.record
        assert record is not None
        self.journal.erase(self.vm_id)
        self.record = None
        return record

    def write_leased(self, record: VmRecord, lease: LeaseRecord) -> None:
        """It may be adopted with its lease. Raises JournalError, but a VM that runs is not to be lost because somebody
        removed its directory.
        """
        try:
            self._write(attrs.evolve(record, lease=lease))
        except HomeGoneError as error:
            self.record = None
            self._unrecorded = True
            _log.warning("leased without a record; no later run adopts it", vm=self.vm_id, error=str(error))

    def renew(self, expires_in_s: float) -> bool:
        """Records that the lease, if there is one, lives for so long from now on. Whether that was done, or need not
        be: a VM whose directory is gone is adopted by none.
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
        """Marks it: from here on it may be somebody else's. Raises JournalError."""
        self.offered = True
        self.journal.offer(self.vm_id)

    def disown(self) -> None:
        """It is its taker's, if it was offered and the offer stands."""
        self.disowned = self.offered

    def erase(self) -> None:
        """Never raises: the VM is ending, and when its process is dead nobody can adopt it, whatever is on disk."""
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
        # In this order: a write that fails may have got through.
        self.record = record
        self.journal.write(record)
