"""What the agent reads and switches in /sys, on a directory that looks like it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from vmm.guest.agent import system
from vmm.guest.agent.system import System


@pytest.fixture
def sys_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four CPUs, of which 0 and 2 are online, and three blocks, of which the first is."""
    files = {"cpu/online": "0,2", "memory/block_size_bytes": "8000000", "memory/auto_online_blocks": "offline"}
    files |= {f"cpu/cpu{number}/online": str(int(number == 2)) for number in (1, 2, 3)}
    files |= {f"memory/memory{number}/state": "offline" if number else "online" for number in (0, 9, 10)}
    files |= {"cpu/cpufreq/online": "0", "memory/power/state": "offline"}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "cpu/cpu0").mkdir()
    monkeypatch.setattr(system, "_CPUS", str(tmp_path / "cpu"))
    monkeypatch.setattr(system, "_MEMORY", str(tmp_path / "memory"))
    (tmp_path / "mounts").write_text("overlay / overlay rw 0 0\n")
    monkeypatch.setattr(system, "_MOUNTS", str(tmp_path / "mounts"))
    return tmp_path


def state(sys_devices: Path) -> dict[str, str]:
    paths = [*sys_devices.glob("cpu/cpu*/online"), *sys_devices.glob("memory/*/state")]
    return {path.parent.name: path.read_text().split()[0] for path in sorted(paths)}


@pytest.mark.usefixtures("sys_devices")
def test_what_is_online_is_counted() -> None:
    assert (System().cpus_online(), System().memory_online_mib()) == (len(os.sched_getaffinity(0)), 128)


def test_a_block_that_is_just_being_plugged_in_is_not_online(sys_devices: Path) -> None:
    """Its directory is there before its files."""
    (sys_devices / "memory/memory11").mkdir()
    assert System().memory_online_mib() == 128
    assert list(System().bring_online(cpus=False, memory=True)) == ["", ""]


def test_the_memory_told_is_what_the_kernel_calls_total() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert System().report()["memory_mib"] == int(total.split()[1]) // 1024


def test_only_what_is_asked_for_and_offline_is_brought_up_one_by_one(sys_devices: Path) -> None:
    before = state(sys_devices)
    assert list(System().bring_online(cpus=False, memory=False)) == []
    assert state(sys_devices) == before
    steps = System().bring_online(cpus=True, memory=False)
    assert next(steps) == ""
    assert state(sys_devices) == before | {"cpu1": "1"}
    assert list(steps) == [""]
    assert state(sys_devices) == before | {"cpu1": "1", "cpu3": "1"}
    assert list(System().bring_online(cpus=True, memory=True)) == ["", ""]
    assert System().memory_online_mib() == 384
    assert state(sys_devices)["cpufreq"] == "0"


def test_a_place_for_a_cpu_is_left_alone_until_acpi_has_found_one_there(sys_devices: Path) -> None:
    """Under TCG all places look like CPUs that are offline; to start what is not plugged in takes ten seconds."""
    for cpu in ("cpu0", "cpu3"):
        (sys_devices / "cpu" / cpu / "firmware_node").mkdir()
    before = state(sys_devices)
    assert list(System().bring_online(cpus=True, memory=False)) == [""]
    assert state(sys_devices) == before | {"cpu3": "1"}
    (sys_devices / "cpu/cpu1/firmware_node").mkdir()
    assert list(System().bring_online(cpus=True, memory=False)) == [""]
    assert state(sys_devices) == before | {"cpu1": "1", "cpu3": "1"}


def test_what_cannot_be_brought_up_does_not_stop_the_rest(sys_devices: Path) -> None:
    (sys_devices / "memory/memory9/state").unlink()
    (sys_devices / "memory/memory9/state").mkdir()
    assert list(System().bring_online(cpus=False, memory=True)) == [
        f"{sys_devices}/memory/memory9/state: Is a directory",
        "",
    ]


@pytest.mark.parametrize("added_pages", [0, 1000])
@pytest.mark.parametrize("root", ["rootfs / rootfs rw 0 0", "overlay / overlay rw 0 0"])
def test_more_memory_is_more_room_for_files_where_these_are_memory(
    sys_devices: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], root: str, added_pages: int
) -> None:
    """Whoever brought it online: newer kernels do it by themselves."""
    (sys_devices / "mounts").write_text(f"{root}\nproc /proc proc rw 0 0\n")
    (sys_devices / "mount").write_text(f'#!/bin/sh\necho "$@" >> {sys_devices}/remounted\nexit 3\n')
    (sys_devices / "mount").chmod(0o755)
    monkeypatch.setattr(system, "_MOUNT", str(sys_devices / "mount"))
    pages = os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(os, "sysconf", lambda _name: pages)
    guest = System()
    pages += added_pages
    guest.make_room_for_files()
    guest.make_room_for_files()
    if added_pages and root.startswith("rootfs"):
        assert len((sys_devices / "remounted").read_text().splitlines()) == 1
        assert "exit status 3" in capfd.readouterr().err
    else:
        assert not (sys_devices / "remounted").exists()


@pytest.mark.parametrize("before", [None, "", "0" * 8, "0" * 32 + "\n", "0" * 300])
def test_an_identity_replaces_what_was_there_and_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    path = tmp_path / "machine-id"
    if before is not None:
        path.write_text(before)
        path.chmod(0o644)
    monkeypatch.setattr(system, "_MACHINE_ID", str(path))
    with closing(System()) as guest:
        assert guest.set_machine_id("a" * 32) == "a" * 32
    assert path.read_text() == "a" * 32 + "\n"


def test_an_identity_is_overwritten_without_the_way_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone has it open, from its template."""
    home = tmp_path / "etc"
    home.mkdir()
    monkeypatch.setattr(system, "_MACHINE_ID", str(home / "machine-id"))
    with closing(System()) as guest:
        guest.set_machine_id("a" * 32)
        home.rename(tmp_path / "elsewhere")
        assert guest.set_machine_id("b" * 32) == "b" * 32
    assert (tmp_path / "elsewhere/machine-id").read_text() == "b" * 32 + "\n"


def test_a_kernel_that_shows_no_uuid_is_shown_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_VM_UUID", str(tmp_path / "product_uuid"))
    assert System().set_vm_uuid("a" * 36) == ""
    assert list(tmp_path.iterdir()) == []
