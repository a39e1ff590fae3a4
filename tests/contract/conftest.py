"""The subjects of the contract, and the leak check for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests.contract.subjects import (
    BOOT_LIMIT_S,
    MAX_MEMORY_MIB,
    MAX_VCPUS,
    MODULES_NOT_OVER_QGA,
    NOT_OVER_QGA,
    QemuSubject,
    SimulatedSubject,
    Subject,
)
from vmm.contract import Vm
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator


@pytest.fixture(scope="session")
def qemu_subject(template_spec: MachineSpec, template: Template) -> Iterator[QemuSubject]:
    subject = QemuSubject(template_spec, template)
    yield subject
    subject.close()


@pytest.fixture(scope="session")
def qga_subject(qga_spec: MachineSpec, qga_template: Template) -> Iterator[QemuSubject]:
    subject = QemuSubject(qga_spec, qga_template)
    yield subject
    subject.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is named as not for qemu-ga, with the reason."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            reason = NOT_OVER_QGA.get(item.originalname) or MODULES_NOT_OVER_QGA.get(item.module.__name__)
            if reason is not None and item.callspec.params.get("subject") == "qga":
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(
    scope="session",
    params=["simulated", pytest.param("qemu", marks=pytest.mark.qemu), pytest.param("qga", marks=pytest.mark.qemu)],
)
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "simulated":
        nowhere = Path("/nowhere")
        return SimulatedSubject(
            MachineSpec(
                qemu=nowhere,
                kernel=nowhere,
                initrd=nowhere,
                accelerator=Accelerator.TCG,
                max_vcpus=MAX_VCPUS,
                max_memory_mib=MAX_MEMORY_MIB,
            )
        )
    qemu: QemuSubject = request.getfixturevalue(f"{request.param}_subject")
    return qemu


@pytest.fixture(autouse=True)
def _checked_for_leaks(subject: Subject, leak_check: None) -> None:
    pass


@pytest.fixture
async def vm(subject: Subject, nursery: trio.Nursery) -> AsyncIterator[Vm]:
    """A running VM that the test leaves as it was."""
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await subject.borrow(nursery)
    yield vm
    await subject.give_back(vm)


@pytest.fixture
async def fresh_vm(subject: Subject, nursery: trio.Nursery) -> AsyncIterator[Vm]:
    """A VM that the test may do anything to: a clone, since that it is as one that was booted is tested elsewhere."""
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await subject.clone("fresh", nursery)
    yield vm
    await vm.stop()
    assert not subject.exists("fresh")
