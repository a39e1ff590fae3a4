"""What only a real guest can show."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
import trio

from tests.agents import collect
from tests.integration.guest.conftest import BOOT_LIMIT_S, qemu_argv
from vmm.guest.client import AgentClient
from vmm.initramfs.image import GuestImage
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.preparation import Preparation

pytestmark = pytest.mark.qemu

MIB = 1024 * 1024

COMMON_MODULES = """
    argparse array ast asyncio base64 bisect bz2 calendar collections concurrent.futures configparser contextlib copy
    csv ctypes dataclasses datetime decimal difflib email enum fcntl fractions functools getpass glob gzip hashlib heapq
    hmac html http.client importlib.metadata inspect io ipaddress itertools json logging lzma math mmap multiprocessing
    operator os pathlib pickle platform pprint queue random re resource sched secrets select shlex shutil signal socket
    statistics string struct subprocess sysconfig tarfile tempfile textwrap threading time timeit tomllib traceback
    types typing unicodedata unittest urllib.request uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo
""".split()  # noqa: SIM905  (a list would take a screen)


async def run(guest: AgentClient, script: str) -> str:
    outcome = await collect(await guest.start_command(CommandSpec(argv=["sh", "-c", script])))
    assert outcome.exit == CommandExit(status=0), outcome
    return outcome.stdout.decode()


async def test_the_guest_runs_the_kernel_of_the_image(guest: AgentClient, guest_image: GuestImage) -> None:
    assert (await guest.ping()).kernel_release == guest_image.kernel_release


async def test_prepare_reseeds_sets_the_clock_and_the_name(guest: AgentClient) -> None:
    new_year_2031 = 1_924_992_000 * 10**9
    report = await guest.prepare(Preparation(entropy=bytes(512), wall_clock_ns=new_year_2031, hostname="vm-17"))
    assert report.reseeded
    assert 0 <= report.wall_clock_ns - new_year_2031 < 10 * 10**9
    assert report.hostname == "vm-17"
    assert (report.cpus_online, 200 < report.memory_mib < 256) == (2, True)
    assert await run(guest, "date +%Y; hostname") == "2031\nvm-17\n"
    await guest.prepare(Preparation(wall_clock_ns=time.time_ns()))


async def test_prepare_brings_up_cpus_that_are_offline(guest: AgentClient) -> None:
    await run(guest, "echo 0 > /sys/devices/system/cpu/cpu1/online")
    assert (await guest.prepare(Preparation())).cpus_online == 1
    assert (await guest.prepare(Preparation(vcpus=2))).cpus_online == 2


async def test_the_machine_id_replaces_the_one_that_is_there(guest: AgentClient) -> None:
    for digit in "ab":
        assert (await guest.prepare(Preparation(machine_id=digit * 32))).machine_id == digit * 32
        assert await run(guest, "cat /etc/machine-id") == f"{digit * 32}\n"


async def test_a_guest_that_shows_no_uuid_is_not_given_one(guest: AgentClient) -> None:
    """QEMU was not told any here."""
    assert await run(guest, "ls /sys/class/dmi/id | grep -c product_uuid || true") == "0\n"
    assert (await guest.prepare(Preparation(vm_uuid="01234567-89ab-cdef-0123-456789abcdef"))).vm_uuid == ""


async def test_python_is_usable(guest: AgentClient) -> None:
    program = f"import {', '.join(COMMON_MODULES)}; print(6 * 7, 'é', hashlib.sha256(b'').hexdigest()[:8])"
    outcome = await collect(await guest.start_command(CommandSpec(argv=["python3", "-c", program])))
    assert (outcome.stdout.decode(), outcome.stderr) == ("42 é e3b0c442\n", b"")


async def test_the_guest_is_a_usual_system(guest: AgentClient) -> None:
    said = await run(
        guest, "whoami; cat /etc/hostname; stat -c %a /tmp; ls /dev/shm | wc -l; awk 'BEGIN { print 1+1 }'"
    )
    assert said.split() == ["root", "vmpool", "1777", "0", "2"]
    await run(guest, "ping -c 1 -q 127.0.0.1")


async def test_orphans_are_reaped(guest: AgentClient) -> None:
    pid = int(await run(guest, "sh -c 'sleep 0 >/dev/null 2>&1 & echo $!'"))
    await run(guest, f"while [ -e /proc/{pid} ]; do sleep 0.01; done")


async def test_megabytes_pass_in_both_directions(guest: AgentClient) -> None:
    data = bytes(range(256)) * (8 * MIB // 256)
    await guest.put_file("/tmp/large", data)
    assert await guest.get_file("/tmp/large") == data
    outcome = await collect(await guest.start_command(CommandSpec(argv=["cat", "/tmp/large"])))
    assert outcome.stdout == data
    await run(guest, "rm /tmp/large")


async def test_a_new_connection_ends_what_the_last_one_left(guest_socket: Path, nursery: trio.Nursery) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        first = await AgentClient.connect(await trio.open_unix_socket(guest_socket), nursery=nursery)
        await first.start_command(CommandSpec(argv=["sh", "-c", "yes left-behind"]))
        await first.aclose()
        second = await AgentClient.connect(await trio.open_unix_socket(guest_socket), nursery=nursery)
        await run(second, "while pgrep -f '^yes left-behind'; do sleep 0.01; done")
        await second.aclose()


async def test_an_agent_whose_host_is_away_does_not_spin(guest_socket: Path, nursery: trio.Nursery) -> None:
    async def measure() -> tuple[float, float]:
        client = await AgentClient.connect(await trio.open_unix_socket(guest_socket), nursery=nursery)
        stat = (await client.get_file("/proc/1/stat")).split()
        uptime = float((await client.get_file("/proc/uptime")).split()[0])
        await client.aclose()
        return (int(stat[13]) + int(stat[14])) / 100, uptime

    with trio.fail_after(BOOT_LIMIT_S):
        used_before, before = await measure()
        # Not waiting for anything: this is the time in which the agent should do nothing.
        await trio.sleep(1)
        used_after, after = await measure()
    assert used_after - used_before < (after - before) / 2


async def test_a_guest_whose_agent_cannot_work_powers_off(guest_image: GuestImage, vm_home: Path) -> None:
    console = vm_home / "console"
    with socket.socket(socket.AF_UNIX) as listener, trio.fail_after(BOOT_LIMIT_S):
        listener.bind(str(vm_home / "agent"))
        listener.listen()
        argv = qemu_argv(guest_image, console, agent=listener.fileno(), port="another.name")
        done = await trio.run_process(argv, check=False, pass_fds=[listener.fileno()])
    assert done.returncode == 0
    assert "no virtio-serial port is named vmpool.agent.0" in await trio.Path(console).read_text()


async def test_who_fills_the_file_system_is_told_so_and_the_guest_lives(guest: AgentClient) -> None:
    """Files are memory, and a guest without memory is no more."""
    fill = "for at in /tmp /dev/shm /root /run /dev; do dd if=/dev/zero of=$at/full bs=1M; done; "
    outcome = await collect(await guest.start_command(CommandSpec(argv=["sh", "-c", fill])))
    assert outcome.stderr.count(b"No space left on device") == 5
    await run(guest, "python3 -c 'bytearray(16 << 20)'")
    await run(guest, "rm /tmp/full /dev/shm/full /root/full /run/full /dev/full")


async def test_empty_files_have_an_end_too(guest: AgentClient) -> None:
    make = "i=0; mkdir /tmp/many; while true 2> /dev/null > /tmp/many/$i; do i=$((i + 1)); done; echo $i"
    made = int(await run(guest, make))
    assert 10_000 < made < 30_000
    await run(guest, "rm -r /tmp/many")


HOG = "x = [bytes([1]) * 2**20 for _ in range(1000)]"


async def test_who_was_killed_for_memory_is_told_from_who_was_killed(guest: AgentClient) -> None:
    commands = {
        ("python3", "-c", HOG): CommandExit(signal=signal.SIGKILL, out_of_memory=True),
        ("sh", "-c", f"python3 -c '{HOG}'; exit $?"): CommandExit(status=137, out_of_memory=True),
        ("sh", "-c", "kill -9 $$"): CommandExit(signal=signal.SIGKILL),
    }
    ended = {argv: (await collect(await guest.start_command(CommandSpec(argv=argv)))).exit for argv in commands}
    assert ended == commands


async def test_a_time_limit_ends_what_left_its_session_too(guest: AgentClient) -> None:
    script = "setsid sleep 4321 & (setsid sleep 4322 &); sleep 4323"
    outcome = await collect(await guest.start_command(CommandSpec(argv=["sh", "-c", script], time_limit_s=1)))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL, timed_out=True)
    assert "sleep 432" not in await run(guest, "ps")
    assert (await run(guest, "ls /sys/fs/cgroup")).count("command-") == 1, "that of ls"


async def test_what_a_command_leaves_behind_in_time_lives_on(guest: AgentClient) -> None:
    script = "setsid sleep 4321 > /dev/null 2>&1 &"
    command = CommandSpec(argv=["sh", "-c", script], time_limit_s=60, leave_children=True)
    assert (await collect(await guest.start_command(command))).exit == CommandExit(status=0)
    await run(guest, "kill -9 $(pidof sleep); while pidof sleep; do :; done")
    again = CommandSpec(argv=["true"], time_limit_s=60)
    assert (await collect(await guest.start_command(again))).exit == CommandExit(status=0)
    assert (await run(guest, "ls /sys/fs/cgroup")).count("command-") == 1, "that of ls"


async def test_the_agent_outlives_a_time_limit_when_something_is_mounted_over_the_cgroups(guest: AgentClient) -> None:
    script = "mount -t tmpfs none /sys/fs/cgroup && exec sleep 4321"
    outcome = await collect(await guest.start_command(CommandSpec(argv=["sh", "-c", script], time_limit_s=1)))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL, timed_out=True)
    again = CommandSpec(argv=["true"], time_limit_s=60)
    assert (await collect(await guest.start_command(again))).exit == CommandExit(status=0)
    await run(guest, "umount /sys/fs/cgroup && rmdir /sys/fs/cgroup/command-*")
