"""Trees of this host as tar streams. What a guest sends may be anything."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmpool import UnsafeTreeError
from vmpool.client.local_trees import pack, unpack


def ignored(_count: int) -> None:
    pass


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def stream(*members: tarfile.TarInfo, data: bytes = b"") -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    file.seek(0)
    return file


UNSAFE: dict[str, Callable[[], list[tarfile.TarInfo]]] = {
    "an absolute name": lambda: [member("/tmp/x")],
    "a name that goes up": lambda: [member("a/../../x")],
    "a link to an absolute path": lambda: [member("l", type=tarfile.SYMTYPE, linkname="/etc")],
    "a link that goes up": lambda: [member("a/l", type=tarfile.SYMTYPE, linkname="../../x")],
    "a name through a link": lambda: [member("l", type=tarfile.SYMTYPE, linkname="."), member("l/x")],
    "a hard link to the outside": lambda: [member("h", type=tarfile.LNKTYPE, linkname="../secret")],
    "a hard link to a link": lambda: [
        member("l", type=tarfile.SYMTYPE, linkname="x"),
        member("h", type=tarfile.LNKTYPE, linkname="l"),
    ],
    "a character device": lambda: [member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a block device": lambda: [member("d", type=tarfile.BLKTYPE)],
    "the directory itself as a link": lambda: [member(".", type=tarfile.SYMTYPE, linkname="x")],
}


@pytest.mark.parametrize("what", UNSAFE)
def test_what_would_leave_the_directory_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "secret").write_text("ours")
    with pytest.raises(UnsafeTreeError):
        unpack(stream(*UNSAFE[what](), data=b"theirs"), tmp_path / "target", ignored)
    assert (tmp_path / "secret").read_text() == "ours"
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "target"]


def test_a_link_that_stays_within_is_made(tmp_path: Path) -> None:
    unpack(stream(member("a/l", type=tarfile.SYMTYPE, linkname="../x"), member("x"), data=b"x"), tmp_path, ignored)
    assert (tmp_path / "a" / "l").read_bytes() == b"x"


def test_a_link_where_a_file_is_to_be_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("ours")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "x").symlink_to(tmp_path / "outside")
    unpack(stream(member("x"), data=b"theirs"), tmp_path / "target", ignored)
    assert (tmp_path / "outside").read_text() == "ours"
    assert (tmp_path / "target" / "x").read_text() == "theirs"


def test_a_broken_stream_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpack(io.BytesIO(stream(member("x"), data=b"x" * 2000).getvalue()[:1500]), tmp_path, ignored)


def test_there_and_back_to_the_nanosecond(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed" / "file").write_bytes(b"content")
    os.utime(tree / "closed" / "file", ns=(1, 1_700_000_000_123_456_789))
    (tree / "closed").chmod(0o555)
    packed = io.BytesIO()
    pack(tree, packed, ignored)
    packed.seek(0)
    unpack(packed, tmp_path / "back", ignored)
    back = tmp_path / "back" / "closed"
    assert back.stat().st_mode & 0o777 == 0o555
    assert (back / "file").stat().st_mtime_ns == 1_700_000_000_123_456_789
    (tree / "closed").chmod(0o755)
    back.chmod(0o755)


@pytest.mark.parametrize("data_at", [(), (0,), (300_000,), (0, 5_000_000), (9_999_990,)])
def test_holes_are_not_carried(tmp_path: Path, data_at: tuple[int, ...]) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    with (tmp_path / "tree" / "below" / os.fsdecode(b"odd-\xff")).open("wb") as file:
        file.truncate(10_000_000)
        for at in data_at:
            file.seek(at)
            file.write(b"here")
    packed = io.BytesIO()
    pack(tmp_path / "tree", packed, ignored)
    assert packed.tell() < 100_000
    packed.seek(0)
    unpack(packed, tmp_path / "back", ignored)
    (back,) = (tmp_path / "back" / "below").iterdir()
    assert back.read_bytes() == (tmp_path / "tree" / "below" / back.name).read_bytes()
    assert back.stat().st_blocks * 512 < 2_000_000


def test_what_it_tells_is_the_content(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * 1000)
    told: list[int] = []
    pack(tmp_path / "tree", io.BytesIO(), told.append)
    assert sum(told) == 1000
