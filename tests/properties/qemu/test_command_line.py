"""QEMU's command line for any paths and sizes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.agent_port import AgentPort
from vmm.devices.console import Console, names_console
from vmm.devices.device import Attachment, Device
from vmm.devices.links import agent_link, vsock_cid
from vmm.devices.usual import usual_devices
from vmm.devices.vsock import VSOCK_PARAMETER, ReservedCid, Vsock
from vmm.qemu import processors
from vmm.qemu.command_line import AnonymousMemory, BootFiles, FileMemory, MemoryBacking, Passed, build_argv
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator, AgentChannel, AgentKind

components = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1)
paths = st.lists(components | st.sampled_from([",", "a,b", ",,", "=,", "a=b"]), min_size=1, max_size=4).map(
    lambda parts: Path("/" + "/".join(parts))
)


def qemu_options(text: str) -> dict[str, str]:
    """QEMU's reading of an option list (util/keyval.c): a doubled comma is a comma, a single one separates."""
    options = {}
    for number, part in enumerate(re.findall(r"(?:[^,]|,,)+", text)):
        key, equals, value = part.replace(",,", ",").partition("=")
        options[key if equals else f"implied-{number}"] = value if equals else key
    return options


def values_of(argv: list[str], option: str) -> list[dict[str, str]]:
    return [qemu_options(value) for name, value in itertools.pairwise(argv) if name == option]


@st.composite
def specs(draw: st.DrawFn) -> MachineSpec:
    vcpus = draw(st.integers(1, 8))
    memory = draw(st.integers(64, 4096))
    agent = draw(st.sampled_from(AgentKind))
    return MachineSpec(
        qemu=draw(paths),
        kernel=draw(paths),
        initrd=draw(paths),
        accelerator=draw(st.sampled_from(Accelerator)),
        vcpus=vcpus,
        max_vcpus=draw(st.integers(vcpus, 16)),
        memory_mib=memory,
        max_memory_mib=draw(st.integers(memory, 8192)),
        kernel_parameters=draw(st.sampled_from(["", "debug", "a=1 b=c,d"])),
        devices=usual_devices(
            agent=agent,
            channel=draw(st.sampled_from(AgentChannel)) if agent is not AgentKind.QGA else AgentChannel.VIRTIO_SERIAL,
        ),
    )


def attachment_of(device: Device, *, console: Path) -> Attachment:
    match device:
        case Console():
            return device.attached(14, log=console, place="7:2")
        case AgentPort():
            return device.attached(12)
        case Vsock():
            return device.attached(ReservedCid(fd=13, cid=77))
    raise AssertionError(f"{device} is new here")


def passed_to(spec: MachineSpec, *, console: Path = Path("console")) -> Passed:
    return Passed(
        qmp_fd=11,
        processors_fd=15 if processors.needs_table(spec) else None,
        devices=tuple(attachment_of(device, console=console) for device in spec.devices),
    )


def has(spec: MachineSpec, kind: type[Device]) -> bool:
    return any(isinstance(device, kind) for device in spec.devices)


boots = st.none() | st.builds(BootFiles, kernel_fd=st.integers(1001, 2000), initrd_fd=st.integers(2001, 3000))
"""None: waits for a template's state."""


@pytest.mark.parametrize("boot", [None, BootFiles(kernel_fd=21, initrd_fd=22)], ids=["incoming", "boot"])
def test_qemu_is_told_the_place_of_no_file_that_it_is_to_open(boot: BootFiles | None) -> None:
    """So that it needs no right to any directory. Where its console is, is said for us to read."""
    closed = Path("/closed")
    spec = MachineSpec(
        qemu=closed / "qemu", kernel=closed / "vmlinuz", initrd=closed / "initrd", accelerator=Accelerator.TCG
    )
    passed = passed_to(spec, console=closed / "console.log")
    _, *options = build_argv(spec, vm_id="vm", passed=passed, memory=FileMemory(fd=15, shared=False), boot=boot)
    assert [option for option in options if str(closed) in option] == ["fd=14,set=0,opaque=/closed/console.log@7:2"]


@given(
    spec=specs(),
    vm_id=components,
    console=paths,
    memory=st.just(AnonymousMemory()) | st.builds(FileMemory, fd=st.integers(3, 1000), shared=st.booleans()),
    boot=boots,
)
def test_what_goes_in_is_what_qemu_reads(
    spec: MachineSpec, vm_id: str, console: Path, memory: MemoryBacking, boot: BootFiles | None
) -> None:
    argv = build_argv(spec, vm_id=vm_id, passed=passed_to(spec, console=console), memory=memory, boot=boot)

    assert argv[0] == str(spec.qemu)
    assert values_of(argv, "-name")[0]["guest"] == vm_id
    if boot is not None:
        assert argv[argv.index("-kernel") + 1] == f"/proc/self/fd/{boot.kernel_fd}"
        assert argv[argv.index("-initrd") + 1] == f"/proc/self/fd/{boot.initrd_fd}"
        parameters = argv[argv.index("-append") + 1]
        assert parameters.endswith(spec.kernel_parameters)
        assert ("acpi_apic_instance=2" in parameters.split()) == ("-acpitable" in argv), "one is no good alone"
    else:
        assert not {"-kernel", "-initrd", "-append"} & set(argv), "a clone has them in its memory"
    chardevs = {options["id"]: options for options in values_of(argv, "-chardev")}
    [console_set] = values_of(argv, "-add-fd")
    assert (console_set["fd"], console_set["opaque"]) == ("14", f"{console}@7:2")
    assert names_console(argv, console)
    assert chardevs["console"]["path"] == f"/dev/fdset/{console_set['set']}"
    assert chardevs["qmp"]["fd"] == "11"
    assert ("agent" in chardevs) == has(spec, AgentPort)
    serial = [options for options in values_of(argv, "-device") if options["implied-0"] == "virtio-serial-pci"]
    assert [options["max_ports"] for options in serial] == ["2"] * has(spec, AgentPort), "each more is two queues more"

    [backend] = [options for options in values_of(argv, "-object") if options["id"] == "memory"]
    assert backend["size"] == f"{spec.memory_mib}M"
    if isinstance(memory, FileMemory):
        assert backend["mem-path"] == f"/proc/self/fd/{memory.fd}"
        assert backend["share"] == ("on" if memory.shared else "off")
    else:
        assert backend["implied-0"] == "memory-backend-ram"
    assert ("-incoming" in argv) == (boot is None)
    assert ("maxmem" in values_of(argv, "-m")[0]) == (spec.max_memory_mib > spec.memory_mib)
    assert values_of(argv, "-smp")[0]["maxcpus"] == str(spec.max_vcpus)


@pytest.mark.parametrize(
    ("accelerator", "model", "option"),
    [
        (Accelerator.TCG, "max", "max,erms=off,fsrm=off"),
        (Accelerator.TCG, "max,-rdrand,erms=on", "max,erms=off,fsrm=off,-rdrand,erms=on"),
        (Accelerator.TCG, "qemu64", "qemu64"),
        (Accelerator.KVM, "max,-rdrand", "max,-rdrand"),
    ],
)
def test_only_tcg_hides_its_slow_string_instructions(accelerator: Accelerator, model: str, option: str) -> None:
    place = Path("/x")
    spec = MachineSpec(qemu=place, kernel=place, initrd=place, accelerator=accelerator, cpu_model=model)
    argv = build_argv(spec, vm_id="vm", passed=passed_to(spec), boot=None)
    assert argv[argv.index("-cpu") + 1] == option


@given(spec=specs(), vm_id=components, boot=boots)
def test_a_command_line_tells_how_its_agent_is_reached(spec: MachineSpec, vm_id: str, boot: BootFiles | None) -> None:
    passed = passed_to(spec)
    argv = build_argv(spec, vm_id=vm_id, passed=passed, boot=boot)

    assert agent_link(argv).agent is spec.agent
    assert vsock_cid(argv) == (77 if has(spec, Vsock) else None)
    told = [options["fd"] for options in values_of(argv, "-chardev") if "fd" in options]
    told += [options["vhostfd"] for options in values_of(argv, "-device") if "vhostfd" in options]
    told += [options["fd"] for options in values_of(argv, "-add-fd")]
    told += [options["data"].removeprefix("/proc/self/fd/") for options in values_of(argv, "-acpitable")]
    assert sorted(told) == sorted(str(fd) for fd in (*passed.inherited, *passed.readable)), (
        "QEMU uses what it inherits, all of it"
    )
    listens = any(VSOCK_PARAMETER in argument.split() for argument in argv)
    ours = spec.agent is AgentKind.BUILTIN and has(spec, Vsock)
    assert listens == (ours and boot is not None)
