"""Copies that nobody can change: what clones map, and what QEMU's user may not read itself."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from vmm.sealed import SealedMemory

PAGE = 4096


def memory_of(path: Path, content: bytes) -> SealedMemory:
    path.write_bytes(content)
    return SealedMemory.copy_of(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\0" * PAGE, b"\0" * PAGE + b"y" * PAGE + b"\0" * 100, os.urandom(2**21 + 5), b"z" * (2**21 - 1)],
    ids=len,
)
def test_it_holds_what_the_file_held(tmp_path: Path, content: bytes) -> None:
    memory = memory_of(tmp_path / "memory", content)
    assert os.pread(memory.fileno(), len(content) + 1, 0) == content


def test_holes_are_copied_as_holes_and_data_behind_them_is_found(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
        file.seek(33 * 2**20 + 7)
        file.write(b"data")
    memory = SealedMemory.copy_of(path)
    assert os.fstat(memory.fileno()).st_size == 64 * 2**20
    assert os.pread(memory.fileno(), 4, 33 * 2**20 + 7) == b"data"
    assert os.fstat(memory.fileno()).st_blocks * 512 == PAGE


def test_pages_of_zeros_take_no_memory(tmp_path: Path) -> None:
    memory = memory_of(tmp_path / "memory", (b"a" + b"\0" * (2 * PAGE - 1)) * 1000)
    assert os.fstat(memory.fileno()).st_blocks * 512 == 1000 * PAGE


def test_nobody_can_change_it_not_even_who_opens_it_for_writing(tmp_path: Path) -> None:
    memory = memory_of(tmp_path / "memory", b"precious" * 1000)
    again = os.open(f"/proc/self/fd/{memory.fileno()}", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in (
            lambda: os.pwrite(again, b"x", 0),
            lambda: os.ftruncate(again, 0),
            lambda: mmap.mmap(again, 8000, flags=mmap.MAP_SHARED),
        ):
            with pytest.raises(PermissionError):
                attempt()
        with mmap.mmap(again, 8000, flags=mmap.MAP_PRIVATE) as private:
            private[:8] = b"my  copy"
    finally:
        os.close(again)
    assert os.pread(memory.fileno(), 8, 0) == b"precious"


def test_it_is_closed_with_the_last_reference(tmp_path: Path) -> None:
    memory = memory_of(tmp_path / "memory", b"x")
    place = Path(f"/proc/self/fd/{memory.fileno()}")
    assert place.exists()
    del memory
    assert not place.exists()
