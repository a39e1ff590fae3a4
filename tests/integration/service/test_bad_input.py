"""What callers get wrong in a VM: each mistake has a status, the language's own error, and a sentence that names it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import attrs
import pytest
import trio

import vmpool
import vmpool.sync
from tests.running import RunningService
from vmpool import CallError, Vm

pytestmark = pytest.mark.timeout(180)

NAME: Final = "bad-input"

PREPARED: Final = """
mkfifo /tmp/fifo
ln -s /tmp/loop /tmp/loop
mkdir /tmp/small && mount -t tmpfs -o size=64k tmpfs /tmp/small
echo old > /tmp/small/file
"""


@pytest.fixture(scope="module")
def lease(service: RunningService) -> Iterator[str]:
    with vmpool.sync.connect(service.socket_path) as pool:
        vm = pool.acquire(name=NAME, ttl=600)
        vm.run(PREPARED, check=True)
        yield vm.lease_id
        vm.release()


@attrs.frozen
class Mistake:
    name: str
    act: Callable[[Vm], Awaitable[Any]]
    status: str
    error: type[Exception]
    """The language's."""
    errno: int | None
    """If it is the guest's kernel that refuses."""
    says: str


async def connect(vm: Vm, port: int) -> None:
    async with vm.connect_port(port):
        pass


MISTAKES: Final = [
    Mistake(
        "a relative path", lambda vm: vm.files.read("a/b"), "INVALID_ARGUMENT", CallError, None, "'a/b' is relative"
    ),
    Mistake("no path", lambda vm: vm.files.stat(""), "INVALID_ARGUMENT", CallError, None, "path: is empty"),
    Mistake("NUL", lambda vm: vm.files.write("/tmp/a\0b", ""), "INVALID_ARGUMENT", CallError, None, "path: has a NUL"),
    Mistake(
        "a directory is read",
        lambda vm: vm.files.read("/tmp"),
        "INVALID_ARGUMENT",
        IsADirectoryError,
        errno.EISDIR,
        "/tmp: Is a directory",
    ),
    Mistake(
        "a directory is written",
        lambda vm: vm.files.write("/tmp", ""),
        "INVALID_ARGUMENT",
        IsADirectoryError,
        errno.EISDIR,
        "/tmp: Is a directory",
    ),
    Mistake(
        "a file is listed",
        lambda vm: vm.files.list("/etc/passwd"),
        "INVALID_ARGUMENT",
        NotADirectoryError,
        errno.ENOTDIR,
        "/etc/passwd: Not a directory",
    ),
    Mistake(
        "a file has files",
        lambda vm: vm.files.read("/etc/passwd/x"),
        "INVALID_ARGUMENT",
        NotADirectoryError,
        errno.ENOTDIR,
        "/etc/passwd/x: Not a directory",
    ),
    Mistake(
        "no such file",
        lambda vm: vm.files.read("/no/such"),
        "NOT_FOUND",
        FileNotFoundError,
        errno.ENOENT,
        "/no/such: No such file",
    ),
    Mistake(
        "missing parents",
        lambda vm: vm.files.write("/no/such/file", "", parents=False),
        "NOT_FOUND",
        FileNotFoundError,
        errno.ENOENT,
        "/no/such",
    ),
    Mistake(
        "no right to read",
        lambda vm: vm.files.list("/root", user="user"),
        "PERMISSION_DENIED",
        PermissionError,
        errno.EACCES,
        "/root: Permission denied",
    ),
    Mistake(
        "no right to write",
        lambda vm: vm.files.write("/etc/x", "", user="user"),
        "PERMISSION_DENIED",
        PermissionError,
        errno.EACCES,
        "/etc",
    ),
    Mistake("a FIFO", lambda vm: vm.files.read("/tmp/fifo"), "INVALID_ARGUMENT", OSError, errno.EINVAL, "/tmp/fifo"),
    Mistake("a device", lambda vm: vm.files.read("/dev/zero"), "INVALID_ARGUMENT", OSError, errno.EINVAL, "/dev/zero"),
    Mistake(
        "links in a circle",
        lambda vm: vm.files.read("/tmp/loop"),
        "INVALID_ARGUMENT",
        OSError,
        errno.ELOOP,
        "Too many levels",
    ),
    Mistake(
        "a full disk",
        lambda vm: vm.files.write("/tmp/small/file", b"x" * 100_000),
        "RESOURCE_EXHAUSTED",
        OSError,
        errno.ENOSPC,
        "No space left",
    ),
    Mistake(
        "a name that is too long",
        lambda vm: vm.files.write("/tmp/" + "n" * 256, ""),
        "INVALID_ARGUMENT",
        CallError,
        None,
        "component of 256 bytes",
    ),
    Mistake(
        "a path that is too long",
        lambda vm: vm.files.stat("/a" * 2048),
        "INVALID_ARGUMENT",
        CallError,
        None,
        "path: has 4096 bytes",
    ),
    Mistake(
        "an unknown user for a file",
        lambda vm: vm.files.read("/etc/passwd", user="nemo"),
        "INVALID_ARGUMENT",
        OSError,
        errno.EINVAL,
        "'nemo'",
    ),
    Mistake(
        "an unknown user for a command",
        lambda vm: vm.run("true", user="nemo"),
        "INVALID_ARGUMENT",
        OSError,
        errno.EINVAL,
        "start.user: ",
    ),
    Mistake(
        "an unknown process",
        lambda vm: vm.process("nothing"),
        "NOT_FOUND",
        CallError,
        None,
        "'nothing'",
    ),
    Mistake(
        "a closed port",
        lambda vm: connect(vm, 9),
        "UNAVAILABLE",
        ConnectionRefusedError,
        errno.ECONNREFUSED,
        "Connection refused",
    ),
    Mistake("no port", lambda vm: connect(vm, 70_000), "INVALID_ARGUMENT", CallError, None, "70000"),
    Mistake(
        "a port that does not answer in time",
        lambda vm: vm.wait_port(9, timeout=0.2),
        "DEADLINE_EXCEEDED",
        TimeoutError,
        None,
        "",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
async def test_a_mistake_is_named(service: RunningService, lease: str, mistake: Mistake) -> None:
    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.get(lease)
        with pytest.raises(CallError) as refused:
            await mistake.act(vm)
    assert isinstance(refused.value, mistake.error)
    assert refused.value.status == mistake.status
    assert mistake.says in str(refused.value)
    assert getattr(refused.value, "errno", None) == mistake.errno


async def test_a_write_that_fails_leaves_the_file_as_it_was(service: RunningService, lease: str) -> None:
    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.get(lease)
        with pytest.raises(OSError, match="No space left"):
            await vm.files.write("/tmp/small/file", b"x" * 100_000)
        assert await vm.files.read_text("/tmp/small/file") == "old\n"
        assert [file.name for file in await vm.files.list("/tmp/small")] == ["file"]


async def test_files_of_proc_are_read_whole(service: RunningService, lease: str) -> None:
    """They say that they have no bytes."""
    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.get(lease)
        assert (await vm.files.stat("/proc/cpuinfo")).size == 0
        assert "processor" in await vm.files.read_text("/proc/cpuinfo")


async def test_a_file_that_grows_or_shrinks_while_it_is_read(service: RunningService, lease: str) -> None:
    """What is there is read, and then it ends."""
    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.get(lease)
        writer = await vm.start("i=0; while :; do echo line >> /tmp/growing; done")
        await vm.run("while [ ! -s /tmp/growing ]; do :; done", check=True)
        text = await vm.files.read_text("/tmp/growing")
        await writer.kill()
        assert text.startswith("line\n")
        assert set(text.split("\n")[:-1]) == {"line"}

        size = 32 * 2**20
        await vm.run(f"truncate -s {size} /tmp/shrinking", check=True)
        read = 0
        async with vm.files.open_read("/tmp/shrinking") as chunks:
            async for chunk in chunks:
                if not read:
                    await vm.run("truncate -s 1000 /tmp/shrinking", check=True)
                read += len(chunk)
        assert 0 < read < size


async def test_a_thousand_connections_are_more_than_one_user_may_have(service: RunningService, lease: str) -> None:
    """The rest is refused by name, and nothing else suffers."""
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 8000), backlog=1024); time.sleep(600)"
    opened, refused = 0, list[CallError]()
    done = trio.Event()

    async def one(vm: Vm) -> None:
        nonlocal opened
        try:
            async with vm.connect_port(8000):
                opened += 1
                await done.wait()
        except CallError as error:
            refused.append(error)
        if opened + len(refused) == 1000:
            done.set()

    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.get(lease)
        server = await vm.start(["python3", "-c", listen])
        await vm.wait_port(8000)
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(one, vm)
        assert (opened, len(refused)) == (256, 744)
        assert {error.status for error in refused} == {"RESOURCE_EXHAUSTED"}
        assert "limits.execs_per_user" in str(refused[0])
        await server.kill()
        assert (await vm.run("echo there")).stdout == "there\n"


async def test_a_forward_to_a_vm_that_has_died(service: RunningService) -> None:
    """Those who connect are cut off; who asks hears that the lease has ended."""
    async with vmpool.connect(service.socket_path) as pool:
        vm = await pool.acquire(ttl=600)
        await vm.start(["nc", "-ll", "-p", "8000", "-e", "cat"])
        await vm.wait_port(8000)
        async with vm.forward(8000) as forward:
            stream = await trio.open_tcp_stream(forward.host, forward.port)
            async with stream:
                await stream.send_all(b"there")
                assert await stream.receive_some() == b"there"
                service.qemus()[vm.vm_id].kill()
                assert await received(stream) == b""
            async with await trio.open_tcp_stream(forward.host, forward.port) as late:
                assert await received(late) == b""
        with pytest.raises(CallError, match="has already ended") as ended:
            await connect(vm, 8000)
        assert ended.value.status == "FAILED_PRECONDITION"


async def received(stream: trio.SocketStream) -> bytes:
    """Empty at the end, also at a hard one."""
    try:
        return bytes(await stream.receive_some())
    except trio.BrokenResourceError:
        return b""
