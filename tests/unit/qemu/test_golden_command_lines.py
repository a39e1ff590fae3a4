"""Command lines and fingerprints as earlier versions made them: their VMs are adopted, and are not out of date.

Who changes one on purpose writes the file anew, one argument a line, and says what becomes of VMs that run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.properties.qemu.test_command_line import attachment_of
from vmm.devices.usual import usual_devices
from vmm.qemu import processors
from vmm.qemu.command_line import AnonymousMemory, BootFiles, FileMemory, MemoryBacking, Passed, build_argv
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.version import QemuVersion
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator, AgentChannel, AgentKind

GOLDEN: Final = Path(__file__).with_name("command_lines")
CONSOLE: Final = Path("/run/vms/vm-1/console.log")
PLAIN: Final = MachineSpec(
    qemu=Path("qemu"), kernel=Path("vmlinuz"), initrd=Path("initrd"), accelerator=Accelerator.TCG
)
OVER_VSOCK: Final = usual_devices(channel=AgentChannel.VSOCK)
TEMPLATES: Final = FileMemory(fd=90, shared=True)
CLONES: Final = FileMemory(fd=90, shared=False)
OWN: Final = AnonymousMemory()

CASES: Final[dict[str, tuple[MachineSpec, MemoryBacking]]] = {
    "boot": (PLAIN, OWN),
    "boot-kvm": (attrs.evolve(PLAIN, accelerator=Accelerator.KVM, cpu_model="host"), OWN),
    "grows": (
        attrs.evolve(PLAIN, vcpus=2, max_vcpus=4, memory_mib=512, max_memory_mib=2048, kernel_parameters="debug a=b,c"),
        OWN,
    ),
    "template": (PLAIN, TEMPLATES),
    "clone": (PLAIN, CLONES),
    "bridges": (attrs.evolve(PLAIN, pci_bridges=2, machine_type="pc"), OWN),
    "qga": (attrs.evolve(PLAIN, devices=usual_devices(agent=AgentKind.QGA)), OWN),
    "noop": (attrs.evolve(PLAIN, devices=usual_devices(agent=AgentKind.NOOP)), OWN),
    "vsock": (attrs.evolve(PLAIN, devices=OVER_VSOCK), OWN),
    "vsock-clone": (attrs.evolve(PLAIN, devices=OVER_VSOCK, pci_bridges=1), CLONES),
    "vsock-of-others": (
        attrs.evolve(PLAIN, devices=usual_devices(agent=AgentKind.NOOP, channel=AgentChannel.VSOCK)),
        OWN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_qemu_is_given_the_command_line_that_it_always_was(name: str) -> None:
    spec, memory = CASES[name]
    passed = Passed(
        qmp_fd=11,
        processors_fd=15 if processors.needs_table(spec) else None,
        devices=tuple(attachment_of(device, console=CONSOLE) for device in spec.devices),
    )
    boot = None if memory == CLONES else BootFiles(kernel_fd=20, initrd_fd=21)
    argv = build_argv(spec, vm_id="vm-1", passed=passed, memory=memory, boot=boot)
    assert argv == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", CASES)
async def test_a_machine_has_the_fingerprint_that_it_always_had(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = CASES[name]
    monkeypatch.chdir(tmp_path)
    for file in (spec.qemu, spec.kernel, spec.initrd):
        file.write_text(str(file))
    golden = json.loads((GOLDEN / "fingerprints.json").read_text(encoding="utf-8"))
    assert await fingerprint(spec, qemu_version=QemuVersion(7, 2, 9)) == golden[name]


def test_each_golden_file_is_used() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)
