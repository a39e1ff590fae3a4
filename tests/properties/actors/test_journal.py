"""The journal keeps its word across crashes.

For any writes and erasures, with faults, and a crash at any step: afterwards each VM has the record from before or from
after what was interrupted or failed, and of everything else the latest. Never a torn one, never an older one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from actors.journal import RECORD_NAME, Found, Journal, JournalError, Recorded, Unrecorded, Unusable
from actors.record import VmRecord
from actors.records.codec import encode
from tests.examples import examples
from tests.unit.actors.stage import BOOT_ID, VMS
from tests.unit.actors.test_record import RECORD
from vmm.simulated.disk import CrashedError, DiskFault, SimulatedDisk, Step

IDS = ("vm-1", "vm-2", "vm-3")


def version(vm_id: str, number: int) -> VmRecord:
    """Records of one VM that can be told apart, and differ in length."""
    return attrs.evolve(RECORD, vm_id=vm_id, made_at_ns=number, generation="g" * (number % 7))


@attrs.frozen
class Write:
    vm_id: str


@attrs.frozen
class Erase:
    vm_id: str


Operation = Write | Erase
Loss = Callable[[SimulatedDisk], SimulatedDisk]


@attrs.define
class Expectation:
    """What may be found of each VM."""

    possible: dict[str, set[VmRecord | None]] = attrs.field(factory=lambda: {vm_id: {None} for vm_id in IDS})
    loses_names: bool = False
    """Names that were not synced mean what they meant before: no service finds that, since the host was booted."""
    synced: bool = True

    @contextlib.contextmanager
    def either(self, vm_id: str, after: VmRecord | None) -> Iterator[None]:
        """What is before, or what is after; only the latter if the block is through, and what it did is safe."""
        self.possible[vm_id] = self.possible[vm_id] | {after}
        self.synced = True
        yield
        if self.synced or not self.loses_names:
            self.possible[vm_id] = {after}

    def check(self, found: Sequence[Found]) -> None:
        seen = {one.vm_id: one for one in found}
        assert seen.keys() == set(IDS)
        for vm_id, one in seen.items():
            assert not isinstance(one, Unusable), f"{vm_id} is torn: {one.reason}"
            record = one.record if isinstance(one, Recorded) else None
            assert record in self.possible[vm_id], f"{vm_id} has a record that was replaced"


def run(
    operations: Sequence[Operation],
    *,
    faults: Callable[[int, Step], DiskFault | None],
    loss: Loss,
    journal_type: type[Journal] = Journal,
    disk_type: type[SimulatedDisk] = SimulatedDisk,
) -> int:
    """Does the operations until the disk crashes, or to the end; crashes then, and looks. Returns the steps taken."""
    expected = Expectation(loses_names=loss is not killed)

    def faults_noted(number: int, step: Step) -> DiskFault | None:
        fault = faults(number, step)
        expected.synced = expected.synced and not (fault and step is Step.SYNC_DIRECTORY)
        return fault

    disk = disk_type(faults=faults_noted)
    for vm_id in IDS:
        disk.make_directory(VMS / vm_id)
    journal = journal_type(directory=VMS, disk=disk, boot_id=BOOT_ID)
    with contextlib.suppress(CrashedError):
        for number, operation in enumerate(operations):
            with contextlib.suppress(JournalError):
                match operation:
                    case Write(vm_id):
                        record = version(vm_id, number)
                        with expected.either(vm_id, record):
                            journal.write(record)
                    case Erase(vm_id):
                        with expected.either(vm_id, None):
                            journal.erase(vm_id)
            if loss is killed:
                expected.check(attrs.evolve(journal, disk=disk).read_all())
    expected.check(attrs.evolve(journal, disk=loss(disk)).read_all())
    return disk.steps


def killed(disk: SimulatedDisk) -> SimulatedDisk:
    return disk.after_kill()


def power_lost(seed: int) -> Loss:
    return lambda disk: disk.after_power_loss(Random(seed))


def crash_at(step: int) -> Callable[[int, Step], DiskFault | None]:
    return lambda number, _step: DiskFault.CRASH if number == step else None


operations = st.lists(st.builds(Write, st.sampled_from(IDS)) | st.builds(Erase, st.sampled_from(IDS)), max_size=8)


@examples(300)
@given(
    operations=operations,
    faults=st.dictionaries(st.integers(0, 60), st.sampled_from([DiskFault.NO_SPACE, DiskFault.IO_ERROR]), max_size=4),
    crash=st.none() | st.integers(0, 60),
    loss=st.just(killed) | st.integers(0, 2**32).map(power_lost),
)
def test_a_crash_anywhere(
    operations: list[Operation], faults: dict[int, DiskFault], crash: int | None, loss: Loss
) -> None:
    plan = faults if crash is None else faults | {crash: DiskFault.CRASH}
    steps = run(operations, faults=lambda number, _step: plan.get(number), loss=loss)
    event("crashed" if crash is not None and crash < steps else "ran to the end")


# -- without what makes it so, the check fails ---------------------------------------------------------------------

HISTORY: tuple[Operation, ...] = (Write("vm-1"), Write("vm-2"), Write("vm-1"), Erase("vm-1"), Write("vm-1"))


class ForgetsToSyncFiles(SimulatedDisk):
    def _sync_file(self, *_: object) -> None:
        pass


class ForgetsToSyncDirectories(SimulatedDisk):
    def sync_directory(self, directory: Path) -> None:
        pass


class WritesInPlace(Journal):
    def write(self, record: VmRecord) -> None:
        self.disk.write(self.directory / record.vm_id / RECORD_NAME, encode(record))
        self.disk.sync_directory(self.directory / record.vm_id)


class RemovesBeforeItRenames(Journal):
    def write(self, record: VmRecord) -> None:
        self.erase(record.vm_id)
        super().write(record)


def search(
    loss: Callable[[int], Loss],
    *,
    journal_type: type[Journal] = Journal,
    disk_type: type[SimulatedDisk] = SimulatedDisk,
) -> None:
    """Crashes the history at each of its steps, some times with different luck."""
    for luck in range(10):
        for crash in itertools.count():
            steps = run(
                HISTORY, faults=crash_at(crash), loss=loss(luck), journal_type=journal_type, disk_type=disk_type
            )
            if crash >= steps:
                break


@pytest.mark.parametrize("loss", [lambda _: killed, power_lost], ids=["killed", "power lost"])
def test_a_crash_at_each_step_of_a_history(loss: Callable[[int], Loss]) -> None:
    search(loss)


@pytest.mark.parametrize(
    ("disk_type", "what"),
    [(ForgetsToSyncFiles, "is torn"), (ForgetsToSyncDirectories, "has a record that was replaced")],
)
def test_without_syncing_the_check_fails(disk_type: type[SimulatedDisk], what: str) -> None:
    search(lambda _: killed, disk_type=disk_type)  # the kernel knows, synced or not
    with pytest.raises(AssertionError, match=what):
        search(power_lost, disk_type=disk_type)


def test_without_renaming_the_check_fails() -> None:
    with pytest.raises(AssertionError, match="is torn"):
        search(lambda _: killed, journal_type=WritesInPlace)


def test_with_a_gap_before_the_renaming_the_check_fails() -> None:
    with pytest.raises(AssertionError, match="has a record that was replaced"):
        search(lambda _: killed, journal_type=RemovesBeforeItRenames)


# -- corruption ----------------------------------------------------------------------------------------------------


@examples(100)
@given(spoiled=st.dictionaries(st.sampled_from(IDS), st.binary(max_size=100)))
def test_a_corrupt_record_costs_its_own_vm_only(spoiled: dict[str, bytes]) -> None:
    disk = SimulatedDisk()
    journal = Journal(directory=VMS, disk=disk, boot_id=BOOT_ID)
    for vm_id in IDS:
        journal.write(version(vm_id, 1))
    for vm_id, data in spoiled.items():
        disk.put(VMS / vm_id / RECORD_NAME, data)
    for found in journal.read_all():
        if found.vm_id in spoiled:
            assert isinstance(found, Unusable)
            assert found.reason
        else:
            assert found == Recorded(vm_id=found.vm_id, record=version(found.vm_id, 1))


def test_what_is_found_without_a_record() -> None:
    disk = SimulatedDisk()
    disk.make_directory(VMS / "vm-1")
    assert Journal(directory=VMS, disk=disk, boot_id=BOOT_ID).read_all() == (Unrecorded(vm_id="vm-1"),)
