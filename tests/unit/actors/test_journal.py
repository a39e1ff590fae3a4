"""The journal on a real disk, and what it says of records that are not to be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs
import pytest

from actors.disk import HostDisk
from actors.journal import (
    GivenAway,
    HomeGoneError,
    Journal,
    JournalError,
    Recorded,
    Unrecorded,
    Unusable,
    boottime_ns,
    host_boot_id,
)
from actors.records.codec import MAX_RECORD_BYTES, encode
from tests.leaks import nothing_left
from tests.unit.actors.stage import BOOT_ID, TERMS
from tests.unit.actors.test_record import LEASE, RECORD
from vmm.simulated.disk import DiskFault, SimulatedDisk, Step
from vmm.words.kinds import BackendKind

BASE = attrs.evolve(RECORD, lease=None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Of one VM, which has a directory."""
    (tmp_path / "vm-1").mkdir()
    with nothing_left():
        yield Journal(directory=tmp_path, boot_id=BOOT_ID)


def files(journal: Journal) -> set[str]:
    return {entry.name for entry in (journal.directory / "vm-1").iterdir()}


def test_what_was_written_last_is_found(journal: Journal) -> None:
    assert journal.read_all() == (Unrecorded(vm_id="vm-1"),)
    journal.write(RECORD)
    journal.write(BASE)
    assert journal.read_all() == (Recorded(vm_id="vm-1", record=BASE),)
    assert files(journal) == {"vm.json"}, "nothing else is left"
    assert (journal.directory / "vm-1" / "vm.json").stat().st_mode & 0o777 == 0o600


def test_what_was_erased_is_not_found(journal: Journal) -> None:
    journal.write(RECORD)
    journal.erase("vm-1")
    assert journal.read_all() == (Unrecorded(vm_id="vm-1"),)
    journal.erase("vm-1")
    assert files(journal) == set()


def test_what_was_offered_is_somebody_elses_until_it_is_withdrawn(journal: Journal) -> None:
    journal.offer("vm-1")
    assert journal.read_all() == (GivenAway(vm_id="vm-1"),)
    assert files(journal) == {"given-away"}
    journal.withdraw("vm-1")
    journal.withdraw("vm-1")
    assert journal.read_all() == (Unrecorded(vm_id="vm-1"),)


def test_an_offer_is_safe_before_it_is_made() -> None:
    """From its first moment, or else the VM would be ended after all."""
    disk = SimulatedDisk()
    journal = Journal(directory=Path("/vms"), disk=disk, boot_id=BOOT_ID)
    disk.make_directory(Path("/vms/vm-1"))
    journal.offer("vm-1")
    for seed in range(20):
        after = attrs.evolve(journal, disk=disk.after_power_loss(Random(seed)))
        assert after.read_all() == (GivenAway(vm_id="vm-1"),)


def test_erasing_where_there_is_no_directory_is_done(journal: Journal) -> None:
    journal.erase("vm-2")


def test_writing_where_there_is_no_directory_fails(journal: Journal) -> None:
    with pytest.raises(HomeGoneError, match=r"the record of vm-2 cannot be written: .*No such file"):
        journal.write(attrs.evolve(RECORD, vm_id="vm-2"))


def test_what_a_crash_left_half_written_is_written_over(journal: Journal) -> None:
    (journal.directory / "vm-1" / "vm.json.new").write_bytes(b"x" * 10_000)
    journal.write(RECORD)
    assert journal.read_all() == (Recorded(vm_id="vm-1", record=RECORD),)


def test_a_link_in_the_place_of_the_new_record_is_not_followed(journal: Journal) -> None:
    precious = journal.directory / "precious"
    precious.write_text("precious")
    (journal.directory / "vm-1" / "vm.json.new").symlink_to(precious)
    with pytest.raises(JournalError):
        journal.write(RECORD)
    assert precious.read_text() == "precious"


def test_a_full_disk_leaves_what_was_there_and_no_litter() -> None:
    full = False
    disk = SimulatedDisk(faults=lambda _, step: DiskFault.NO_SPACE if full and step is Step.WRITE_REST else None)
    journal = Journal(directory=Path("/vms"), disk=disk, boot_id=BOOT_ID)
    journal.write(BASE)
    full = True
    with pytest.raises(JournalError, match="No space left on device"):
        journal.write(RECORD)
    assert journal.read_all() == (Recorded(vm_id="vm-1", record=BASE),)
    with pytest.raises(FileNotFoundError):
        disk.read(Path("/vms/vm-1/vm.json.new"), limit=1)


def test_a_record_that_cannot_be_encoded_is_an_error_of_the_journal(journal: Journal) -> None:
    huge = attrs.evolve(LEASE, terms=attrs.evolve(TERMS, lease_id="x" * MAX_RECORD_BYTES))
    with pytest.raises(JournalError, match="cannot be written: is longer than"):
        journal.write(attrs.evolve(RECORD, lease=huge))


def test_a_record_of_another_backend_is_of_no_use(journal: Journal) -> None:
    """Nobody here could find its VM, and another one may go by the same number."""
    attrs.evolve(journal, backend=BackendKind.SIMULATED).write(attrs.evolve(RECORD, backend=BackendKind.SIMULATED))
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)
    assert found.reason == "backend: the record has 'simulated', this service 'qemu'"


def test_a_record_of_another_boot_is_of_no_use(journal: Journal) -> None:
    attrs.evolve(journal, boot_id="before").write(attrs.evolve(RECORD, boot_id="before"))
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)
    assert "booted since" in found.reason


def test_a_record_in_the_directory_of_another_vm_is_of_no_use(journal: Journal) -> None:
    (journal.directory / "vm-1" / "vm.json").write_bytes(encode(attrs.evolve(RECORD, vm_id="vm-2")))
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)
    assert "is not the VM of this directory" in found.reason


def test_no_more_is_read_than_a_record_may_have(journal: Journal) -> None:
    (journal.directory / "vm-1" / "vm.json").write_bytes(b"x" * (10 * MAX_RECORD_BYTES))
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)
    assert f"is longer than {MAX_RECORD_BYTES} bytes" in found.reason


def test_a_record_that_is_no_file_costs_its_vm_only(journal: Journal) -> None:
    (journal.directory / "vm-1" / "vm.json").mkdir()
    (journal.directory / "a file").write_text("not a VM")
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)


def test_the_hosts_clock_and_boot() -> None:
    assert 0 < boottime_ns() <= boottime_ns()
    assert host_boot_id() == host_boot_id() != ""


def test_a_short_write_is_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        HostDisk().write(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


# -- what is no file ---------------------------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [make_fifo, make_link, make_directory])
def test_what_is_in_the_place_of_a_record_costs_its_own_vm(journal: Journal, make: Callable[[Path], None]) -> None:
    """A FIFO would have the service wait in the kernel for ever, SIGTERM or not."""
    make(journal.directory / "vm-1" / "vm.json")
    (found,) = journal.read_all()
    assert isinstance(found, Unusable)


@pytest.mark.parametrize("make", [make_fifo, make_link, make_directory])
def test_what_is_in_the_place_of_a_new_record_is_not_waited_for(journal: Journal, make: Callable[[Path], None]) -> None:
    make(journal.directory / "vm-1" / "vm.json.new")
    with pytest.raises(JournalError):
        journal.write(RECORD)
