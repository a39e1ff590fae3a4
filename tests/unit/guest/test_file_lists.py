"""Whose rights count, which paths can be, and what a directory has."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.agents import Narrow
from tests.files import as_root, listed, raw, read, refused, write
from vmm.errors import AgentRequestError
from vmm.guest.client import AgentClient
from vmm.words.files import (
    FileKind,
    FileWrite,
    MakeDirectory,
    Move,
    SetAttributes,
)

NOBODY = 65534


@as_root
async def test_a_user_may_do_what_its_rights_allow(client: AgentClient, place: Path) -> None:
    (place / "secret").write_bytes(b"secret")
    (place / "secret").chmod(0o600)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with refused(errno.EACCES):
        await read(client.files, raw(place / "secret"), user="nobody")
    with refused(errno.EACCES):
        await write(client.files, FileWrite(path=raw(place / "secret")), b"x", user="nobody")
    with refused(errno.EACCES):
        await write(client.files, FileWrite(path=raw(place / "new")), b"x", user=str(NOBODY))
    info = await write(client.files, FileWrite(path=raw(place / "open" / "new")), b"x", user="nobody")
    assert info.uid == NOBODY
    with refused(errno.EPERM):
        await client.files.edit(SetAttributes(path=raw(place / "open" / "new"), owner="root"), user="nobody")
    assert await read(client.files, raw(place / "secret")) == b"secret", "root is somebody else again"


async def test_an_unknown_user_is_refused(client: AgentClient) -> None:
    with refused(errno.EINVAL, part="user"):
        await client.files.stat(b"/", user="nosuch")
    await client.files.stat(b"/")


@pytest.mark.parametrize("path", [b"", b"relative", b"./x", b"/with\0nul"])
async def test_a_path_is_absolute_and_has_no_nul(client: AgentClient, path: bytes) -> None:
    with refused(errno.EINVAL, part="path"):
        await client.files.stat(path)
    with refused(errno.EINVAL, part="path"):
        await client.files.list(path)
    with refused(errno.EINVAL, part="path"):
        await client.files.edit(MakeDirectory(path=path))
    with refused(errno.EINVAL, part="target"):
        await client.files.edit(Move(path=b"/x", target=path))


async def test_what_the_kernel_says_of_a_path(client: AgentClient, place: Path) -> None:
    (place / "loop").symlink_to("loop")
    (place / "file").touch()
    for path, code in (
        (place / "loop", errno.ELOOP),
        (place / "file" / "x", errno.ENOTDIR),
        (place / ("n" * 256), errno.ENAMETOOLONG),
        (Path(str(place) + "/x" * 2100), errno.ENAMETOOLONG),
        (place / "none", errno.ENOENT),
    ):
        with refused(code):
            await client.files.stat(raw(path))
        with refused(code):
            await read(client.files, raw(path))
    with refused(errno.ELOOP):
        await write(client.files, FileWrite(path=raw(place / "loop")), b"x")
    assert (await client.files.stat(raw(place / "loop"), follow=False)).kind is FileKind.SYMLINK


async def test_names_need_not_be_utf8(client: AgentClient, place: Path) -> None:
    path = raw(place) + b"/\xff\xfe\n name"
    await write(client.files, FileWrite(path=path), b"x")
    assert [info.path for info in await listed(client.files, raw(place))] == [path]
    with pytest.raises(AgentRequestError, match="No such file"):
        await read(client.files, path + b"2")


async def test_a_list_goes_as_deep_as_asked(client: AgentClient, place: Path) -> None:
    (place / "a" / "b" / "c").mkdir(parents=True)
    (place / "a" / "file").write_bytes(b"12345")
    (place / "link").symlink_to("a")
    top = raw(place)
    for depth, names in (
        (1, {b"a", b"link"}),
        (2, {b"a", b"link", b"a/b", b"a/file"}),
        (9, {b"a", b"link", b"a/b", b"a/file", b"a/b/c"}),
    ):
        found = await listed(client.files, top, depth=depth)
        assert {info.path for info in found} == {top + b"/" + name for name in names}
    found = await listed(client.files, top, depth=9)
    order = [info.path for info in found]
    assert order.index(top + b"/a/b") < order.index(top + b"/a/b/c")
    link = next(info for info in found if info.path == top + b"/link")
    assert (link.kind, link.target) == (FileKind.SYMLINK, b"a")
    with refused(errno.ENOTDIR):
        await listed(client.files, top + b"/a/file")


async def test_a_list_of_ten_thousand_is_received_in_parts(client: AgentClient, place: Path) -> None:
    for number in range(10_000):
        (place / f"{number:05}").touch()
    source = await client.files.list(raw(place), room=Narrow())
    names: list[bytes] = []
    while records := await source.receive():
        assert len(records) < 1000
        names += [info.path for info in records]
    await source.aclose()
    assert sorted(names) == [raw(place) + b"/%05d" % number for number in range(10_000)]


@as_root
async def test_a_directory_further_down_that_is_closed_to_the_user_is_listed_without_content(
    client: AgentClient, place: Path
) -> None:
    (place / "closed" / "inside").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    found = await listed(client.files, raw(place), depth=5, user="nobody")
    assert [info.path for info in found] == [raw(place / "closed")]
    with refused(errno.EACCES):
        await listed(client.files, raw(place / "closed"), user="nobody")
