"""Trees as tar streams, against GNU tar and Python's own reader."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.files import as_root, grow, names_in, raw, read_tree, refused, seen, write_tree
from vmm.guest.client import AgentClient
from vmm.words.files import TreeSummary, TreeWrite

needs_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar here")

Evil = tuple[str, bytes, str]
"""Name, type and target of a member."""


def stream_of(*members: Evil) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return stream.getvalue()


def tar(*arguments: str | Path, stream: bytes = b"") -> bytes:
    return subprocess.run(["tar", *arguments], input=stream, check=True, capture_output=True).stdout


async def test_a_tree_comes_back_identical(client: AgentClient, tmp_path: Path) -> None:
    grow(tmp_path / "tree")
    stream = await read_tree(client.files, raw(tmp_path / "tree"))
    summary = await write_tree(client.files, TreeWrite(path=raw(tmp_path / "again"), parents=True), stream)
    before = seen(tmp_path / "tree")
    assert seen(tmp_path / "again") == before
    assert summary.members == len(before.files)
    assert summary.size == 2**22 + 100_000


async def test_a_file_is_a_tree_of_one(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "into").mkdir()
    for name in ("file", "link"):
        stream = await read_tree(client.files, raw(tmp_path / name))
        summary = await write_tree(client.files, TreeWrite(path=raw(tmp_path / "into")), stream)
        assert summary == TreeSummary(members=1, size=7)
        assert (tmp_path / "into" / name).read_bytes() == b"content"


@needs_tar
async def test_gnu_tar_reads_what_is_written(client: AgentClient, tmp_path: Path) -> None:
    grow(tmp_path / "tree")
    (tmp_path / "again").mkdir()
    stream = await read_tree(client.files, raw(tmp_path / "tree"))
    tar("-xpf", "-", "--numeric-owner", "--directory", tmp_path / "again", stream=stream)
    assert seen(tmp_path / "again") == seen(tmp_path / "tree")


@needs_tar
@pytest.mark.parametrize(
    "form",
    [
        "--format=gnu --sparse",
        "--format=pax --sparse --sparse-version=0.0",
        "--format=pax --sparse --sparse-version=0.1",
        "--format=pax --sparse --sparse-version=1.0",
        "--format=gnu",
    ],
)
async def test_what_gnu_tar_writes_is_extracted(client: AgentClient, tmp_path: Path, form: str) -> None:
    grow(tmp_path / "tree")
    with (tmp_path / "tree" / "many holes").open("wb") as file:
        for number in range(40):
            file.seek(number * 65536)
            file.write(b"%d" % number)
    (tmp_path / "tree" / ("n" * 200)).write_bytes(b"long")
    stream = tar("-cf", "-", *form.split(), "--directory", tmp_path / "tree", ".")
    await write_tree(client.files, TreeWrite(path=raw(tmp_path / "again"), parents=True), stream)
    before, after = seen(tmp_path / "tree"), seen(tmp_path / "again")
    assert after.linked == before.linked
    for name, file_before in before.files.items():
        file_after = after.files[name]
        assert (file_after.mode, file_after.owner, file_after.content) == (
            file_before.mode,
            file_before.owner,
            file_before.content,
        ), name
        assert file_after.has_holes == ("--sparse" in form and file_before.has_holes), name


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_what_python_writes_is_extracted(client: AgentClient, tmp_path: Path, form: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        member = tarfile.TarInfo("directory/" * 15 + "file")
        member.size, member.mode, member.mtime = 3, 0o640, 1234567890
        tar.addfile(member, io.BytesIO(b"abc"))
    summary = await write_tree(client.files, TreeWrite(path=raw(tmp_path / "t"), parents=True), stream.getvalue())
    assert summary == TreeSummary(members=1, size=3)
    path = tmp_path / "t" / ("directory/" * 15 + "file")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"abc", 0o640)
    assert path.stat().st_mtime_ns == 1234567890 * 10**9


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "")],
        [("a/../../outside", tarfile.REGTYPE, "")],
        [("/outside", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/tmp"), ("link/outside", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/outside", tarfile.DIRTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "link/secret")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [("file", tarfile.REGTYPE, ""), ("file/inner", tarfile.REGTYPE, "")],
        [(".", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, ".")],
    ],
)
async def test_no_member_comes_to_lie_outside(client: AgentClient, tmp_path: Path, members: list[Evil]) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "tree").mkdir()
    with refused(errno.EINVAL, part="data"):
        await write_tree(client.files, TreeWrite(path=raw(tmp_path / "tree")), stream_of(*members))
    assert names_in(tmp_path) == {"secret", "tree"}
    assert (tmp_path / "secret").stat().st_nlink == 1


async def test_a_link_that_is_there_is_replaced_and_not_followed(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "name").symlink_to(tmp_path / "kept")
    (tmp_path / "tree" / "directory").symlink_to(tmp_path)
    stream = stream_of(("name", tarfile.REGTYPE, ""), ("directory", tarfile.DIRTYPE, ""))
    await write_tree(client.files, TreeWrite(path=raw(tmp_path / "tree")), stream)
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert (tmp_path / "tree" / "name").read_bytes() == b""
    assert not (tmp_path / "tree" / "directory").is_symlink()


@pytest.mark.parametrize("cut", [1, 511, 513, 1500, 3000])
async def test_a_stream_that_is_cut_off_is_an_error(client: AgentClient, tmp_path: Path, cut: int) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(5000))
    stream = await read_tree(client.files, raw(tmp_path / "tree" / "file"))
    with refused(errno.EINVAL, part="data"):
        await write_tree(client.files, TreeWrite(path=raw(tmp_path / "again"), parents=True), stream[:cut])


@pytest.mark.parametrize("garbage", [b"\xff" * 512, b"x" * 512, b"0" * 512, b"\0" * 511])
async def test_what_is_no_tar_stream_is_refused(client: AgentClient, tmp_path: Path, garbage: bytes) -> None:
    good = stream_of(("file", tarfile.REGTYPE, ""))[:512]
    for stream in (garbage, good + garbage):
        with refused(errno.EINVAL, part="data"):
            await write_tree(client.files, TreeWrite(path=raw(tmp_path / "t"), parents=True), stream)


async def test_a_tree_goes_into_a_directory_that_exists(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, code in ((tmp_path / "none", errno.ENOENT), (tmp_path / "file", errno.ENOTDIR)):
        with refused(code):
            await write_tree(client.files, TreeWrite(path=raw(path)), stream_of())
    for path, code in ((tmp_path / "none", errno.ENOENT), (tmp_path / "file" / "x", errno.ENOTDIR)):
        with refused(code):
            await read_tree(client.files, raw(path))
    (tmp_path / "old").mkdir(mode=0o711)
    await write_tree(client.files, TreeWrite(path=raw(tmp_path / "old")), stream_of(("./", tarfile.DIRTYPE, "")))
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o711, "its own mode is kept"


@as_root
async def test_owners_are_kept_on_request_and_for_root_only(client: AgentClient, place: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.uid, member.gid, member.mode = 1234, 4321, 0o4755
        tar.addfile(member)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    for name, owners, user, owner, mode in (
        ("a", True, "", (1234, 4321), 0o4755),
        ("b", False, "", (0, 0), 0o755),
        ("c", True, "nobody", (65534, 65534), 0o755),
    ):
        path = place / "open" / name
        wanted = TreeWrite(path=raw(path), parents=True, owners=owners)
        await write_tree(client.files, wanted, stream.getvalue(), user=user)
        status = (path / "file").stat()
        assert ((status.st_uid, status.st_gid), status.st_mode & 0o7777) == (owner, mode), name


@pytest.mark.parametrize("name", ["holes", "ü/holes", os.fsdecode(b"holes-\xff"), "l" * 200])
async def test_python_finds_a_sparse_file_under_its_name(client: AgentClient, tmp_path: Path, name: str) -> None:
    path = tmp_path / "tree" / name
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(2**20)
    stream = await read_tree(client.files, raw(tmp_path / "tree"))
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape") as tar:
        member = tar.getmember(name)
    assert (member.size, member.issparse()) == (2**20, True)
