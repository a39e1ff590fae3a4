"""What root can read without capabilities, as the service is under systemd; and what others can change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import pool
from pool.systemd.places import Place, first_closed, first_of_others, places_of

DIRECTORY, FILE, STICKY = 0o040000, 0o100000, 0o1000
ROOT, OTHER = 0, 1000


def place(mode: int, *, uid: int = ROOT, gid: int = ROOT) -> Place:
    return Place(path=Path("/x"), mode=mode, uid=uid, gid=gid)


@pytest.mark.parametrize(
    ("one", "read", "allowed"),
    [
        (place(DIRECTORY | 0o700), True, True),
        (place(DIRECTORY | 0o077), True, False),
        (place(DIRECTORY | 0o700, uid=OTHER, gid=OTHER), False, False),
        (place(DIRECTORY | 0o711, uid=OTHER, gid=OTHER), False, True),
        (place(DIRECTORY | 0o711, uid=OTHER, gid=OTHER), True, False),
        (place(DIRECTORY | 0o750, uid=OTHER, gid=ROOT), True, True),
        (place(DIRECTORY | 0o705, uid=OTHER, gid=ROOT), True, False),
        (place(FILE | 0o600), True, True),
        (place(FILE | 0o600, uid=OTHER, gid=OTHER), True, False),
        (place(FILE | 0o644, uid=OTHER, gid=OTHER), True, True),
    ],
)
def test_the_one_class_that_root_is_in_decides(one: Place, read: bool, allowed: bool) -> None:
    assert one.allows_root(read=read) == allowed


@pytest.mark.parametrize(
    ("one", "others"),
    [
        (place(DIRECTORY | 0o755), False),
        (place(DIRECTORY | 0o775), False),
        (place(DIRECTORY | 0o777), True),
        (place(DIRECTORY | STICKY | 0o777), False),
        (place(FILE | 0o666), True),
        (place(FILE | 0o644, uid=OTHER), True),
    ],
)
def test_others_change_what_is_theirs_or_everybodys(one: Place, others: bool) -> None:
    assert one.others_may_change_it == others


def look(modes: dict[str, tuple[int, int]]) -> Callable[[Path], Place]:
    """Directories of root that all may enter and read, but for these: mode and uid."""

    def at(path: Path) -> Place:
        mode, uid = modes.get(str(path), (0o755, ROOT))
        return Place(path=path, mode=DIRECTORY | mode, uid=uid, gid=uid)

    return at


PROGRAM = Path("/home/me/venv/bin/vmpool")


@pytest.mark.parametrize("closed", ["/home/me", "/home/me/venv/bin", "/home/me/venv/bin/vmpool"])
def test_one_closed_directory_on_the_way_is_enough(closed: str) -> None:
    found = first_closed([Path("/usr/bin"), PROGRAM], look=look({closed: (0o700, OTHER)}))
    assert found is not None
    assert found.path == Path(closed)


def test_directories_on_the_way_need_not_be_read() -> None:
    assert first_closed([PROGRAM], look=look({"/home/me": (0o711, OTHER)})) is None


def test_a_directory_of_others_on_the_way_lets_them_replace_what_is_in_it() -> None:
    found = first_of_others([Path("/usr/bin"), PROGRAM], look=look({"/home/me": (0o755, OTHER)}))
    assert found is not None
    assert found.path == Path("/home/me")


def test_what_is_roots_alone_is_changed_by_nobody_else() -> None:
    assert first_of_others([PROGRAM], look=look({"/home": (0o700, ROOT)})) is None


def test_this_host_is_looked_at(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert first_of_others([tmp_path]) is not None
    tmp_path.chmod(0o000)
    assert first_closed([tmp_path]) is not None
    tmp_path.chmod(0o700)


def test_a_command_is_made_of_itself_its_interpreter_and_modules_and_where_links_lead(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch()
    link = tmp_path / "vmpool"
    link.symlink_to(program)
    places = places_of(link)
    assert {link, program.resolve(), Path(sys.executable), Path(pool.__file__).parent} <= places
    assert Path(trio.__file__).parents[1] in places
