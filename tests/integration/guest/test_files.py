"""Files in a real guest: what the host's kernel could not show."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator

import pytest
import trio

from tests.agents import collect
from tests.files import listed, read, read_tree, refused, write, write_tree
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandSpec
from vmm.words.files import Copy, FileWrite, Move, Remove, TreeWrite, WriteMode

pytestmark = pytest.mark.qemu

SMALL = b"/run/small"
MIB = 2**20


async def sh(guest: AgentClient, script: str) -> str:
    outcome = await collect(await guest.start_command(CommandSpec(argv=["sh", "-c", script])))
    assert outcome.exit.status == 0, outcome.stderr
    return outcome.stdout.decode()


@pytest.fixture
async def small(guest: AgentClient) -> AsyncIterator[AgentClient]:
    """A guest with a file system of one MiB."""
    await sh(guest, f"mkdir -p {SMALL.decode()} && mount -t tmpfs -o size=1m none {SMALL.decode()}")
    yield guest
    await sh(guest, f"umount {SMALL.decode()}")


async def names(guest: AgentClient) -> list[bytes]:
    return [info.path for info in await listed(guest.files, SMALL)]


async def test_a_full_disk_ends_a_write_and_an_atomic_one_leaves_nothing(small: AgentClient) -> None:
    path = SMALL + b"/file"
    await write(small.files, FileWrite(path=path), b"old")
    with refused(errno.ENOSPC):
        await write(small.files, FileWrite(path=path), bytes(2 * MIB))
    assert await read(small.files, path) == b"old"
    assert await names(small) == [path]
    with refused(errno.ENOSPC):
        await write(small.files, FileWrite(path=path, how=WriteMode.TRUNCATE), bytes(2 * MIB))
    await small.files.edit(Remove(path=path))


async def test_a_full_disk_ends_a_tree_a_copy_and_a_move_which_leave_the_source(small: AgentClient) -> None:
    source = b"/tmp/large"
    await write(small.files, FileWrite(path=source + b"/file", parents=True), bytes(2 * MIB))
    stream = await read_tree(small.files, source)
    with refused(errno.ENOSPC):
        await write_tree(small.files, TreeWrite(path=SMALL), stream)
    await small.files.edit(Remove(path=SMALL + b"/file"))
    with refused(errno.ENOSPC):
        await small.files.edit(Copy(path=source, target=SMALL + b"/copy", recursive=True))
    with refused(errno.ENOSPC):
        await small.files.edit(Move(path=source, target=SMALL + b"/moved"))
    assert await names(small) == []
    assert (await small.files.stat(source + b"/file")).size == 2 * MIB
    await small.files.edit(Remove(path=source, recursive=True))


async def test_a_file_of_sys_is_written_in_place(guest: AgentClient) -> None:
    path = b"/proc/sys/kernel/hostname"
    before = await read(guest.files, path)
    info = await write(guest.files, FileWrite(path=path, how=WriteMode.TRUNCATE), b"renamed\n")
    assert info.path == path
    assert await read(guest.files, path) == b"renamed\n"
    await write(guest.files, FileWrite(path=path, how=WriteMode.TRUNCATE), before)


async def test_devices_are_neither_read_nor_written(guest: AgentClient) -> None:
    for path in (b"/dev/zero", b"/dev/console", b"/dev/hwrng"):
        with trio.fail_after(60), refused(errno.EINVAL):
            await read(guest.files, path)
        with trio.fail_after(60), refused(errno.EINVAL):
            await write(guest.files, FileWrite(path=path, how=WriteMode.TRUNCATE), b"x")


async def test_a_large_file_takes_little_of_the_guests_memory(guest: AgentClient) -> None:
    data, path = os.urandom(MIB) * 24, b"/tmp/large"
    before = int(await sh(guest, "awk '/VmRSS/ {print $2}' /proc/1/status"))
    await write(guest.files, FileWrite(path=path), data)
    assert await read(guest.files, path) == data
    await guest.files.edit(Remove(path=path))
    assert int(await sh(guest, "awk '/VmHWM/ {print $2}' /proc/1/status")) < before + 4096


async def test_a_tree_is_the_same_in_another_guest(guest: AgentClient) -> None:
    script = """
        mkdir -p /tmp/t/sub /tmp/t/empty && cd /tmp/t
        for n in $(seq 300); do echo $n > sub/$n; done
        ln sub/7 hard; ln -s nowhere soft; mkfifo -m 640 fifo; mknod -m 620 null c 1 3
        dd if=/dev/urandom of=holes bs=4k count=1 seek=999 2>/dev/null
        chown 1234:4321 sub/8; chmod 4711 sub/9; chmod 1777 empty; touch -d @1000000007 sub/10
    """
    await sh(guest, script)
    stream = await read_tree(guest.files, b"/tmp/t")
    assert len(stream) < MIB, "holes are not sent"
    await write_tree(guest.files, TreeWrite(path=b"/tmp/u", parents=True), stream)
    look = (
        "cd {} && find . -exec stat -c '%n %f %u %g %Y %Z %h %t %T' {{}} + | sed 's/ [0-9]* \\([0-9]* [0-9a-f]* "
        "[0-9a-f]*\\)$/ \\1/' | sort && find . -type f -exec md5sum {{}} + | sort && du -k holes && readlink soft"
    )
    assert await sh(guest, look.format("/tmp/t")) == await sh(guest, look.format("/tmp/u"))
    await sh(guest, "rm -r /tmp/t /tmp/u")
