"""Directories that are believed: which ones are ours alone, and whether one can be made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmm.places import check_can_make, exposure

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

NOBODY = 65534


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Path]:
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o755)
    yield parent
    os.chown(parent, os.geteuid(), os.getegid())


@pytest.fixture
def place(parent: Path) -> Path:
    place = parent / "place"
    place.mkdir(mode=0o700)
    return place


def told(place: Path) -> str:
    exposed = exposure(place)
    assert exposed is not None
    return exposed.told(otherwise="choose another")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777, 0o1770])
def test_in_a_directory_in_which_nobody_can_replace_it_it_is_ours(parent: Path, place: Path, mode: int) -> None:
    """A sticky one, as /tmp and /dev/shm are, lets nobody but us remove or rename what is ours."""
    parent.chmod(mode)
    assert exposure(place) is None
    assert exposure(parent / "not-there-yet") is None


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_where_others_could_replace_it_the_parent_is_named_with_the_remedy(
    parent: Path, place: Path, mode: int
) -> None:
    parent.chmod(mode)
    for each in (place, parent / "not-there-yet"):
        assert told(each) == (
            f"{parent} is open to others (mode {mode:o}, uid {os.geteuid()}); `chmod go-w {parent}`, or choose another"
        )


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o1777])
def test_what_others_can_enter_is_not_ours_alone(place: Path, mode: int) -> None:
    place.chmod(mode)
    said = f"{place} is open to others (mode {mode:o}, uid {os.geteuid()}); `chmod 0700 {place}`, or choose another"
    assert told(place) == said


@as_root
def test_what_somebody_else_made_first_is_not_used(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    assert told(place) == f"{place} is open to others (mode 700, uid {NOBODY}); remove it, or choose another"


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_in_somebody_elses_directory_nothing_is_ours(parent: Path, place: Path, mode: int) -> None:
    """Its owner may remove what is in it, sticky or not. There is no remedy: it is theirs."""
    parent.chmod(mode)
    os.chown(parent, NOBODY, NOBODY)
    assert told(place) == f"{parent} is open to others (mode {mode:o}, uid {NOBODY}); choose another"


def test_a_link_is_no_directory_of_ours(parent: Path, place: Path) -> None:
    """Who made it chooses where it leads, and may choose again."""
    (parent / "link").symlink_to(place)
    assert told(parent / "link") == f"{parent}/link is not a directory; remove it, or choose another"
    (parent / "dangling").symlink_to(parent / "nowhere")
    assert told(parent / "dangling") == f"{parent}/dangling is not a directory; remove it, or choose another"


@as_root
def test_a_link_on_the_way_is_fine_if_it_is_ours(parent: Path, place: Path, tmp_path: Path) -> None:
    """As /var/run is."""
    link = tmp_path / "link"
    link.symlink_to(parent)
    assert exposure(link / place.name) is None
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert told(link / place.name).startswith(f"{link} is open to others")


def test_a_place_whose_parent_is_not_there_either_will_be_ours(tmp_path: Path) -> None:
    assert exposure(tmp_path / "a" / "b") is None


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_what_can_be_made_is_not_made(tmp_path: Path, below: str) -> None:
    check_can_make(tmp_path / below)
    assert list(tmp_path.iterdir()) == []


def test_where_the_kernel_makes_no_directories_that_is_told_to_root_too() -> None:
    with pytest.raises(FileNotFoundError, match=re.escape("'/proc'")):
        check_can_make(Path("/proc/vmpool/x"))


def test_a_file_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"'{tmp_path}/file'"):
        check_can_make(tmp_path / "file" / "x")
