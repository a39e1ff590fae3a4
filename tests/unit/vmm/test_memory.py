"""The kernel's files on memory, as they are on hosts of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.memory import MemoryReading, Pressure, own_cgroup, parse_available, parse_pressure, read_memory

PSI = """some avg10=12.34 avg60=1.00 avg300=0.20 total=123456
full avg10=0.50 avg60=0.00 avg300=0.00 total=23456
"""
MEMINFO = (
    "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    2097152 kB\nBuffers:           1 kB\n"
)


def test_pressure() -> None:
    assert parse_pressure(PSI) == Pressure(some_avg10=12.34, full_avg10=0.5)


@pytest.mark.parametrize("text", ["", "some avg10=1.00 avg60=0.00 avg300=0.00 total=0\n", "full\nsome\n", "\0\xff"])
def test_what_is_no_pressure(text: str) -> None:
    """CPU pressure has no `full` on older kernels; what is unknown is not zero."""
    assert parse_pressure(text) is None


def test_available() -> None:
    assert parse_available(MEMINFO) == 2048
    assert parse_available("MemTotal: 8000000 kB\n") is None


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "pressure" / "memory").write_text(PSI)
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "self" / "cgroup").write_text("3:cpu:/x\n0::/system.slice/vmpool.service\n")
    return tmp_path


def test_a_host_with_everything(proc: Path, tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    ours = root / "system.slice" / "vmpool.service"
    ours.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory\n")
    (ours / "memory.pressure").write_text(PSI.replace("12.34", "40.00"))
    assert own_cgroup(proc=proc, root=root) == ours
    found = read_memory(proc=proc, cgroup=ours)
    assert found == MemoryReading(
        available_mib=2048,
        host=Pressure(some_avg10=12.34, full_avg10=0.5),
        own=Pressure(some_avg10=40.0, full_avg10=0.5),
    )
    assert found.some_avg10 == 40.0


def test_a_kernel_without_psi(proc: Path) -> None:
    (proc / "pressure" / "memory").unlink()
    (proc / "pressure").rmdir()
    found = read_memory(proc=proc, cgroup=proc / "nowhere")
    assert found == MemoryReading(available_mib=2048, host=None, own=None)
    assert found.some_avg10 is None


def test_psi_that_is_switched_off(proc: Path) -> None:
    """With psi=0 the file opens, and reading it fails; so does a directory."""
    (proc / "pressure" / "memory").unlink()
    (proc / "pressure" / "memory").mkdir()
    assert read_memory(proc=proc).host is None


def test_control_groups_of_the_first_version_are_none_of_ours(proc: Path, tmp_path: Path) -> None:
    assert own_cgroup(proc=proc, root=tmp_path / "cgroup") is None
    (proc / "self" / "cgroup").write_text("4:memory:/x\n")
    assert own_cgroup(proc=proc, root=tmp_path) is None


def test_the_real_proc() -> None:
    found = read_memory(cgroup=own_cgroup())
    assert found.available_mib is not None
    assert found.available_mib > 0
    assert found.host is None or 0 <= found.host.some_avg10 <= 100
