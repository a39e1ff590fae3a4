"""The table of CPUs of emulated machines, read as ACPI says that it is to be read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import attrs
import pytest

from vmm.devices.usual import usual_devices
from vmm.qemu import processors
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator, AgentKind

SPEC = MachineSpec(
    qemu=Path("/q"), kernel=Path("/k"), initrd=Path("/i"), accelerator=Accelerator.TCG, vcpus=1, max_vcpus=3
)


def entries(table: bytes) -> list[tuple[int, bytes]]:
    """Type and content of each, after the fixed part."""
    found, at = [], 8
    while at < len(table):
        kind, length = table[at], table[at + 1]
        assert length > 2
        assert at + length <= len(table)
        found.append((kind, table[at + 2 : at + length]))
        at += length
    return found


@pytest.mark.parametrize("max_vcpus", [2, 3, 240])
def test_every_cpu_that_there_may_be_is_enabled(max_vcpus: int) -> None:
    table = processors.table(attrs.evolve(SPEC, max_vcpus=max_vcpus))
    assert struct.unpack_from("<II", table) == (0xFEE00000, 1)
    cpus = [struct.unpack("<BBI", content) for kind, content in entries(table) if kind == 0]
    assert cpus == [(number, number, 1) for number in range(max_vcpus)]


def test_the_rest_is_what_qemu_says_of_its_machines() -> None:
    """Taken from /sys/firmware/acpi/tables/APIC of a q35 machine of QEMU 7.2, 10.0 and 11.1."""
    rest = [(kind, content.hex()) for kind, content in entries(processors.table(SPEC)) if kind != 0]
    assert rest == [
        (1, "00000000c0fe00000000"),
        (2, "0000020000000000"),
        (2, "0005050000000d00"),
        (2, "0009090000000d00"),
        (2, "000a0a0000000d00"),
        (2, "000b0b0000000d00"),
        (4, "ff000001"),
    ]


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({}, True),
        ({"devices": usual_devices(agent=AgentKind.QGA)}, True),
        ({"vcpus": 3}, False),
        ({"accelerator": Accelerator.KVM}, False),
        ({"devices": usual_devices(agent=AgentKind.NOOP)}, False),
    ],
    ids=str,
)
def test_only_emulated_machines_that_we_can_add_cpus_to_need_one(change: dict[str, Any], needed: bool) -> None:
    assert processors.needs_table(attrs.evolve(SPEC, **change)) == needed
