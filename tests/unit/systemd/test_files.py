"""What `install-unit` leaves on a host, and what it takes away."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool.systemd.files import CONFIGURATION, UNIT, USER, Deed, install, uninstall
from pool.systemd.unit import UnitError, packaged_unit, packaged_user


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    before = os.umask(request.param)
    yield tmp_path
    os.umask(before)


def at(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def files(root: Path) -> set[Path]:
    return {Path("/") / path.relative_to(root) for path in root.rglob("*") if not path.is_dir()}


def deeds(root: Path, *, remove: bool = False) -> dict[Path, Deed]:
    done = uninstall(root=root) if remove else install(packaged_unit(), root=root)
    return {Path("/") / one.path.relative_to(root): one.deed for one in done}


def test_unit_user_and_configuration_are_written_for_all_to_read(root: Path) -> None:
    assert deeds(root) == dict.fromkeys((UNIT, USER, CONFIGURATION), Deed.WROTE)
    assert files(root) == {UNIT, USER, CONFIGURATION}
    assert at(root, UNIT).read_text() == packaged_unit()
    assert at(root, USER).read_text() == packaged_user()
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_configuration_that_is_there_is_never_written_to(root: Path) -> None:
    configuration = at(root, CONFIGURATION)
    configuration.parent.mkdir(parents=True)
    configuration.write_text("mine")
    assert deeds(root)[CONFIGURATION] == Deed.KEPT
    assert deeds(root, remove=True)[CONFIGURATION] == Deed.KEPT
    assert files(root) == {CONFIGURATION}
    assert configuration.read_text() == "mine"


def test_a_link_to_nowhere_in_place_of_a_configuration_is_left_too(root: Path) -> None:
    configuration = at(root, CONFIGURATION)
    configuration.parent.mkdir(parents=True)
    configuration.symlink_to("/nowhere/vmpool.toml")
    assert deeds(root)[CONFIGURATION] == Deed.KEPT
    assert deeds(root, remove=True)[CONFIGURATION] == Deed.KEPT


def test_an_earlier_unit_of_ours_is_replaced(root: Path) -> None:
    install("# vmpool under systemd\n[Unit]\n", root=root)
    deeds(root)
    assert at(root, UNIT).read_text() == packaged_unit()


def test_all_that_was_written_is_removed(root: Path) -> None:
    deeds(root)
    assert deeds(root, remove=True) == dict.fromkeys((UNIT, USER, CONFIGURATION), Deed.REMOVED)
    assert files(root) == set()
    assert not at(root, CONFIGURATION).parent.exists()


def test_other_files_beside_the_configuration_stay(root: Path) -> None:
    deeds(root)
    other = at(root, CONFIGURATION).with_name("other.toml")
    other.touch()
    deeds(root, remove=True)
    assert other.exists()


def test_where_nothing_was_written_nothing_is_removed(root: Path) -> None:
    assert deeds(root, remove=True) == {}


@pytest.mark.parametrize("path", [UNIT, USER])
def test_files_of_others_are_refused_before_anything_is_done(root: Path, path: Path) -> None:
    theirs = at(root, path)
    theirs.parent.mkdir(parents=True)
    theirs.write_text("# theirs\n")
    for remove in (False, True):
        with pytest.raises(UnitError, match=f"{theirs} was not written by install-unit; move it away first"):
            deeds(root, remove=remove)
    assert files(root) == {path}
    assert theirs.read_text() == "# theirs\n"


def test_a_masked_unit_stays_masked(root: Path) -> None:
    unit = at(root, UNIT)
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")
    for remove in (False, True):
        with pytest.raises(UnitError, match=f"{unit} is a link to /dev/null"):
            deeds(root, remove=remove)
    assert unit.is_symlink()


def test_an_enabled_unit_is_not_removed(root: Path) -> None:
    deeds(root)
    enabled = at(root, Path("/etc/systemd/system/multi-user.target.wants/vmpool.service"))
    enabled.parent.mkdir()
    enabled.symlink_to(UNIT)
    with pytest.raises(UnitError, match="systemctl disable --now vmpool"):
        deeds(root, remove=True)
    assert at(root, UNIT).exists()
