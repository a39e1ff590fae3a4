"""vmpool.v1.Files: requests reach the guest as they were meant, and its answers and errors come back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tests.unit.rpc.fake_guest import FILE, Answering, Sink, Source, lease_with, refusal
from tests.unit.rpc.raw import RawClient, connected, framed
from tests.unit.rpc.served import Served
from vmm.words import files
from vmm.words.files import FileChange, FileChangeKind, FileKind, TreeSummary
from vmpool.wire.details import ErrorDetail
from vmpool.wire.generated.vmpool import v1 as wire

FILES = "/vmpool.v1.Files/"

TOLD = wire.FileInfo(
    path=b"/app/\xff",
    kind=wire.FileKind.REGULAR,
    size=5,
    mode=0o4755,
    uid=1000,
    gid=1001,
    user="user",
    modified_ns=-1,
    links=2,
    inode=2**63,
)


async def refused(raw: RawClient, method: str, *requests: Any) -> tuple[str, str]:
    call = await raw.start(FILES + method)
    for request in requests:
        await raw.send(call, framed(request))
    await raw.send(call, end=True)
    return await raw.status(call)


# -- one answer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [True, False])
async def test_stat(served: Served, follow: bool) -> None:
    guest = Answering(stat=FILE)
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        request = wire.StatRequest(lease_id=lease_id, path=b"/app/\xff", user="user", no_follow=not follow)
        call = await raw.request(FILES + "Stat", request)
        assert await raw.replies(call, wire.StatReply) == [wire.StatReply(file=TOLD)]
    assert guest.asked == [("stat", (b"/app/\xff",), {"user": "user", "follow": follow})]


@pytest.mark.parametrize(
    ("method", "request_", "edit"),
    [
        ("MakeDirectory", wire.MakeDirectoryRequest(path=b"/a"), files.MakeDirectory(path=b"/a")),
        (
            "MakeDirectory",
            wire.MakeDirectoryRequest(path=b"/a", mode=0, parents=True),
            files.MakeDirectory(path=b"/a", mode=0, parents=True),
        ),
        ("Move", wire.MoveRequest(path=b"/a", target=b"/b"), files.Move(path=b"/a", target=b"/b")),
        (
            "Move",
            wire.MoveRequest(path=b"/a", target=b"/b", no_replace=True),
            files.Move(path=b"/a", target=b"/b", replace=False),
        ),
        (
            "Copy",
            wire.CopyRequest(path=b"/a", target=b"/b", recursive=True),
            files.Copy(path=b"/a", target=b"/b", recursive=True),
        ),
        ("Link", wire.LinkRequest(path=b"/a", target=b"../b"), files.Link(path=b"/a", target=b"../b")),
        (
            "Link",
            wire.LinkRequest(path=b"/a", target=b"/b", hard=True),
            files.Link(path=b"/a", target=b"/b", hard=True),
        ),
        (
            "SetAttributes",
            wire.SetAttributesRequest(path=b"/a", mode=0o1777, owner="user", group="7", modified_ns=-5, recursive=True),
            files.SetAttributes(path=b"/a", mode=0o1777, owner="user", group="7", modified_ns=-5, recursive=True),
        ),
        ("SetAttributes", wire.SetAttributesRequest(path=b"/a", mode=0), files.SetAttributes(path=b"/a", mode=0)),
    ],
)
async def test_edits(served: Served, method: str, request_: Any, edit: files.FileEdit) -> None:
    guest = Answering(edit=FILE)
    request_.lease_id, request_.user = await lease_with(served, files=guest), "user"
    async with connected(served.path) as raw:
        call = await raw.request(FILES + method, request_)
        (reply,) = await raw.replies(call, getattr(wire, f"{method}Reply"))
        assert reply.file == TOLD
    assert guest.asked == [("edit", (edit,), {"user": "user"})]


async def test_remove(served: Served) -> None:
    guest = Answering(edit=None)
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        request = wire.RemoveRequest(lease_id=lease_id, path=b"/a", recursive=True, missing_ok=True)
        call = await raw.request(FILES + "Remove", request)
        assert await raw.replies(call, wire.RemoveReply) == [wire.RemoveReply()]
    assert guest.asked == [("edit", (files.Remove(path=b"/a", recursive=True, missing_ok=True),), {"user": ""})]


# -- streams to the client ---------------------------------------------------------------------------------------------


async def test_a_file_is_told_of_and_read(served: Served) -> None:
    source = Source([b"one", b"two"], b"", info=FILE)
    guest = Answering(read=source)
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        request = wire.ReadRequest(lease_id=lease_id, path=b"/a", offset=7, length=6)
        call = await raw.request(FILES + "Read", request)
        assert await raw.replies(call, wire.ReadReply) == [
            wire.ReadReply(file=TOLD),
            wire.ReadReply(data=b"one"),
            wire.ReadReply(data=b"two"),
        ]
        assert await raw.status(call) == ("0", "")
    assert guest.asked == [("read", (b"/a",), {"offset": 7, "length": 6, "user": ""})]
    assert source.closed


async def test_a_read_of_all_has_no_length(served: Served) -> None:
    guest = Answering(read=Source([], b"", info=FILE))
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        await refused(raw, "Read", wire.ReadRequest(lease_id=lease_id, path=b"/a"))
    assert guest.asked[0][2]["length"] is None


async def test_a_directory_is_listed(served: Served) -> None:
    source = Source[tuple[files.FileInfo, ...]](
        [(FILE,), (FILE, attrs.evolve(FILE, kind=FileKind.SYMLINK, target=b"x"))], ()
    )
    guest = Answering(list=source)
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "List", wire.ListFilesRequest(lease_id=lease_id, path=b"/app"))
        first, second = await raw.replies(call, wire.ListFilesReply)
        assert first.files == [TOLD]
        assert [file.kind for file in second.files] == [wire.FileKind.REGULAR, wire.FileKind.SYMLINK]
        assert second.files[1].target == b"x"
    assert guest.asked == [("list", (b"/app",), {"depth": 1, "user": ""})]


async def test_a_tree_is_read_after_a_reply_without_data(served: Served) -> None:
    lease_id = await lease_with(served, files=Answering(read_tree=Source([b"tar"], b"")))
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "ReadTree", wire.ReadTreeRequest(lease_id=lease_id, path=b"/app"))
        replies = await raw.replies(call, wire.ReadTreeReply)
    assert [reply.data for reply in replies] == [b"", b"tar"]


async def test_changes_are_told_until_the_path_is_removed(served: Served) -> None:
    moved = FileChange(kind=FileChangeKind.MOVED, path=b"/a/x", target=b"/a/y", directory=True)
    source = Source[tuple[FileChange, ...]]([(moved,)], (), error=refusal("ENOENT"))
    guest = Answering(watch=source)
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "Watch", wire.WatchFilesRequest(lease_id=lease_id, path=b"/a", recursive=True))
        first, second = await raw.replies(call, wire.WatchFilesReply)
        assert first.changes == []
        (change,) = second.changes
        assert (change.kind, change.path, change.target, change.directory) == (
            wire.FileChangeKind.MOVED,
            b"/a/x",
            b"/a/y",
            True,
        )
        assert (await raw.status(call))[0] == "5"
    assert source.closed


async def test_a_client_that_goes_away_ends_the_stream_in_the_guest(served: Served) -> None:
    source = Source[tuple[FileChange, ...]]([(FileChange(kind=FileChangeKind.OVERFLOW),)], (), stays=True)
    lease_id = await lease_with(served, files=Answering(watch=source))
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "Watch", wire.WatchFilesRequest(lease_id=lease_id, path=b"/a"))
        assert await raw.message(call, wire.WatchFilesReply) is not None
    await served.until(lambda: source.closed and served.server.statistics().calls == 0)


async def test_a_client_that_does_not_read_is_waited_for(served: Served) -> None:
    source = Source([bytes(65536)] * 1000, b"", info=FILE)
    lease_id = await lease_with(served, files=Answering(read=source))
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "Read", wire.ReadRequest(lease_id=lease_id, path=b"/a"))
        await served.until(lambda: source.taken > 0)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert source.taken < 10
        replies = await raw.replies(call, wire.ReadReply)
    assert sum(len(reply.data or b"") for reply in replies) == 1000 * 65536


# -- streams to the guest ----------------------------------------------------------------------------------------------


async def test_a_file_is_written(served: Served) -> None:
    sink = Sink(FILE)
    guest = Answering(write=sink)
    lease_id = await lease_with(served, files=guest)
    start = wire.WriteStart(
        lease_id=lease_id, path=b"/a", user="user", mode=0o600, owner="0", group="g", parents=True,
        how=wire.WriteMode.UPDATE, offset=9,
    )  # fmt: skip
    async with connected(served.path) as raw:
        call = await raw.start(FILES + "Write")
        for request in (wire.WriteRequest(start=start), wire.WriteRequest(data=b"one"), wire.WriteRequest(data=b"two")):
            await raw.send(call, framed(request))
        await raw.send(call, end=True)
        assert await raw.replies(call, wire.WriteReply) == [wire.WriteReply(file=TOLD)]
    write = files.FileWrite(
        path=b"/a", how=files.WriteMode.UPDATE, mode=0o600, owner="0", group="g", parents=True, offset=9
    )
    assert guest.asked == [("write", (write,), {"user": "user"})]
    assert (bytes(sink.received), sink.finished, sink.closed) == (b"onetwo", True, True)


async def test_a_write_that_says_nothing_else_replaces_the_file(served: Served) -> None:
    guest = Answering(write=Sink(FILE))
    lease_id = await lease_with(served, files=guest)
    async with connected(served.path) as raw:
        await refused(raw, "Write", wire.WriteRequest(start=wire.WriteStart(lease_id=lease_id, path=b"/a")))
    assert guest.asked[0][1] == (files.FileWrite(path=b"/a"),)


async def test_a_tree_is_written(served: Served) -> None:
    sink = Sink(TreeSummary(members=3, size=2**40))
    guest = Answering(write_tree=sink)
    lease_id = await lease_with(served, files=guest)
    start = wire.WriteTreeStart(lease_id=lease_id, path=b"/a", parents=True, no_owners=True)
    async with connected(served.path) as raw:
        call = await raw.start(FILES + "WriteTree")
        await raw.send(call, framed(wire.WriteTreeRequest(start=start)))
        await raw.send(call, framed(wire.WriteTreeRequest(data=b"tar")), end=True)
        assert await raw.replies(call, wire.WriteTreeReply) == [wire.WriteTreeReply(members=3, bytes=2**40)]
    assert guest.asked == [("write_tree", (files.TreeWrite(path=b"/a", parents=True, owners=False),), {"user": ""})]


async def test_a_client_that_goes_away_gives_the_write_up(served: Served) -> None:
    sink = Sink(FILE)
    lease_id = await lease_with(served, files=Answering(write=sink))
    async with connected(served.path) as raw:
        call = await raw.start(FILES + "Write")
        await raw.send(call, framed(wire.WriteRequest(start=wire.WriteStart(lease_id=lease_id, path=b"/a"))))
        await raw.send(call, framed(wire.WriteRequest(data=b"half")))
        await served.until(lambda: sink.received == b"half")
    await served.until(lambda: sink.closed and served.server.statistics().calls == 0)
    assert not sink.finished


async def test_a_guest_that_does_not_take_the_data_is_waited_for(served: Served) -> None:
    sink = Sink(FILE, room=1)
    lease_id = await lease_with(served, files=Answering(write=sink))
    async with connected(served.path) as raw:
        call = await raw.start(FILES + "Write")
        await raw.send(call, framed(wire.WriteRequest(start=wire.WriteStart(lease_id=lease_id, path=b"/a"))))
        piece = framed(wire.WriteRequest(data=bytes(10_000)))
        sent = 0
        while raw.http2.local_flow_control_window(call) > len(piece):
            await raw.send(call, piece)
            sent += len(piece)
        await served.until(lambda: bool(sink.received))
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert len(sink.received) == 10_000
        assert sent < 1024 * 1024


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ENOENT", "5"),
        ("EISDIR", "3"),
        ("ENOTDIR", "3"),
        ("ELOOP", "3"),
        ("ENAMETOOLONG", "3"),
        ("EINVAL", "3"),
        ("EEXIST", "6"),
        ("ENOTEMPTY", "6"),
        ("EACCES", "7"),
        ("EPERM", "7"),
        ("EROFS", "7"),
        ("ENOSPC", "8"),
        ("EDQUOT", "8"),
        ("ENOMEM", "8"),
        ("UNSUPPORTED", "9"),
        ("EXDEV", "9"),
        ("EIO", "9"),
        ("whatever a guest makes up" * 100, "9"),
    ],
)
async def test_an_error_of_the_guest_has_its_status_and_its_details(served: Served, code: str, status: str) -> None:
    lease_id = await lease_with(served, files=Answering(stat=refusal(code)))
    path = b"/app/\xff" + b"/long" * 700
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "Stat", wire.StatRequest(lease_id=lease_id, path=path))
        assert (await raw.status(call))[0] == status
        detail = await raw.detail(call)
        assert (detail.domain, detail.reason[:60]) == ("guest", code[:60])
        assert len(detail.reason) <= 63
        assert detail.metadata["path"].startswith("/app/\\xff/long")
        assert len(detail.metadata["path"]) == 512
        assert sum(len(name) + len(value) for name, value in raw.headers[call].items()) < 8192


async def test_an_unknown_user_is_named_as_the_part(served: Served) -> None:
    lease_id = await lease_with(served, files=Answering(stat=refusal("EINVAL", part="user")))
    async with connected(served.path) as raw:
        call = await raw.request(FILES + "Stat", wire.StatRequest(lease_id=lease_id, path=b"/a", user="nobody-here"))
        assert (await raw.status(call))[0] == "3"
        assert await raw.detail(call) == ErrorDetail(
            reason="EINVAL", domain="guest", metadata={"part": "user", "path": "/a"}
        )


async def test_a_refusal_while_data_is_sent_ends_the_write(served: Served) -> None:
    sink = Sink(error=refusal("ENOSPC"))
    lease_id = await lease_with(served, files=Answering(write=sink))
    async with connected(served.path) as raw:
        call = await raw.start(FILES + "Write")
        await raw.send(call, framed(wire.WriteRequest(start=wire.WriteStart(lease_id=lease_id, path=b"/a"))))
        await raw.send(call, framed(wire.WriteRequest(data=b"x")))
        assert (await raw.status(call))[0] == "8"
        assert (await raw.detail(call)).metadata == {"path": "/a"}


BAD: dict[str, tuple[str, list[Any], str]] = {
    "a relative path": ("Stat", [wire.StatRequest(path=b"a/b")], "path: 'a/b' is relative; set an absolute path"),
    "no path": ("Stat", [wire.StatRequest()], "path: is empty; set an absolute path"),
    "a NUL": ("Stat", [wire.StatRequest(path=b"/a\0b")], "path: has a NUL byte; remove it"),
    "a long path": (
        "Stat",
        [wire.StatRequest(path=b"/a" * 2048)],
        "path: has 4096 bytes; Linux's maximum for a path is 4095",
    ),
    "a long name": (
        "Stat",
        [wire.StatRequest(path=b"/a/" + b"x" * 256)],
        "path: has a component of 256 bytes; Linux's maximum is 255",
    ),
    "a user that is none": (
        "Stat",
        [wire.StatRequest(path=b"/a", user="root:x")],
        "user: 'root:x' is not a name or number of the guest",
    ),
    "a long user": ("Stat", [wire.StatRequest(path=b"/a", user="u" * 256)], "user: has 256 bytes; at most 255"),
    "a mode": (
        "MakeDirectory",
        [wire.MakeDirectoryRequest(path=b"/a", mode=0o10000)],
        "mode: 10000 is out of range; the maximum is 7777",
    ),
    "a relative target": ("Move", [wire.MoveRequest(path=b"/a", target=b"b")], "target: 'b' is relative"),
    "a relative hard link": ("Link", [wire.LinkRequest(path=b"/a", target=b"b", hard=True)], "target: 'b' is relative"),
    "a link to nothing": ("Link", [wire.LinkRequest(path=b"/a")], "target: is empty; set what the link points to"),
    "no attribute": (
        "SetAttributes",
        [wire.SetAttributesRequest(path=b"/a")],
        "mode: and owner, group and modified_ns are not set; set one of them",
    ),
    "an offset": (
        "Read",
        [wire.ReadRequest(path=b"/a", offset=2**63)],
        "offset: 9223372036854775808 is out of range; the maximum is 9223372036854775807",
    ),
    "a length": (
        "Read",
        [wire.ReadRequest(path=b"/a", offset=2**63 - 1, length=1)],
        "length: 1 ends beyond 9223372036854775807; use 0 for all",
    ),
    "a write mode": (
        "Write",
        [wire.WriteRequest(start=wire.WriteStart(path=b"/a", how=wire.WriteMode(9)))],
        "start.how: 9 is unknown to this service; use REPLACE (1)",
    ),
    "an offset where there is none": (
        "Write",
        [wire.WriteRequest(start=wire.WriteStart(path=b"/a", offset=1))],
        "start.offset: is for UPDATE only; leave it out",
    ),
    "a relative path of a write": (
        "Write",
        [wire.WriteRequest(start=wire.WriteStart(path=b"a"))],
        "start.path: 'a' is relative",
    ),
    "data before the start": (
        "Write",
        [wire.WriteRequest(data=b"x")],
        "start: must be the first message of the call",
    ),
    "nothing at all": ("WriteTree", [], "start: must be the first message of the call"),
    "neither": ("WriteTree", [wire.WriteTreeRequest()], "kind: has nothing; set exactly one of start and data"),
}


@pytest.mark.parametrize(("method", "requests", "reason"), BAD.values(), ids=BAD)
async def test_a_bad_field_is_named_before_the_guest_is_asked(
    served: Served, method: str, requests: list[Any], reason: str
) -> None:
    guest = Answering()
    lease_id = await lease_with(served, files=guest)
    for request in requests:
        start = getattr(request, "start", request)
        if start is not None and hasattr(start, "lease_id"):
            start.lease_id = lease_id
    async with connected(served.path) as raw:
        status, message = await refused(raw, method, *requests)
    assert (status, message[: len(reason)]) == ("3", reason)
    assert guest.asked == []


async def test_a_second_start_is_refused(served: Served) -> None:
    sink = Sink(FILE)
    lease_id = await lease_with(served, files=Answering(write=sink))
    start = wire.WriteRequest(start=wire.WriteStart(lease_id=lease_id, path=b"/a"))
    async with connected(served.path) as raw:
        assert await refused(raw, "Write", start, start) == (
            "3",
            "start: was already sent; use one call for each file or tree",
        )
    assert sink.closed
    assert not sink.finished
