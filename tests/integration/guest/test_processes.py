"""Processes in a real guest: users, limits, terminals, and what ends with what."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.agents import collect
from tests.integration.guest.conftest import BOOT_LIMIT_S
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandExit, CommandSpec, Output, ResourceLimit, Terminal, TerminalSize
from vmm.words.guest_processes import Positions, ProcessOutput, ProcessRef

pytestmark = pytest.mark.qemu


def shell(script: str, **options: Any) -> CommandSpec:
    return CommandSpec(argv=["sh", "-c", script], **options)


async def run(guest: AgentClient, script: str, **options: Any) -> str:
    outcome = await collect(await guest.start_command(shell(script, **options)))
    assert outcome.exit == CommandExit(status=0), outcome
    return outcome.stdout.decode()


async def sleepers(guest: AgentClient) -> set[str]:
    return set((await run(guest, "ps -o args | grep '^sleep' || true")).splitlines())


async def test_a_user_has_its_home_and_no_rights_of_root(guest: AgentClient) -> None:
    said = await run(guest, "id -un; id -Gn; pwd; umask; echo mine > f && ls -l f; rm f", user="user")
    assert said.split()[:4] == ["user", "user", "/home/user", "0022"]
    for script in (
        "ls /root",
        "echo x > /etc/x",
        "echo x > /x",
        "kill -9 1",
        "mount -t tmpfs none /tmp",
        "echo 1 > /dev/kmsg",
    ):
        outcome = await collect(await guest.start_command(shell(script, user="user")))
        assert outcome.exit.status != 0, script
    assert await run(guest, "cat /etc/passwd /etc/group > /dev/null; echo x > /tmp/x; rm /tmp/x", user="user") == ""


async def test_groups_replace_the_users_own(guest: AgentClient) -> None:
    assert await run(guest, "id -g; id -G", user="user", groups=("tty", "1234")) == "5\n5 1234\n"
    assert await run(guest, "id -un; id -Gn; pwd", user="nobody") == "nobody\nnogroup\n/\n"


async def test_limits_hold(guest: AgentClient) -> None:
    limits = (ResourceLimit(name="nofile", soft=64, hard=128), ResourceLimit(name="fsize", soft=1024, hard=None))
    said = await run(guest, "ulimit -n; ulimit -Hn; ulimit -f; ulimit -Hf", limits=limits, user="user")
    assert said.split() == ["64", "128", "2", "unlimited"]
    raised = await collect(
        await guest.start_command(
            shell("ulimit -n", user="user", limits=(ResourceLimit(name="nofile", soft=5000, hard=8192),))
        )
    )
    assert raised.stdout == b"5000\n", "the agent raises them as root"


async def test_a_user_has_its_terminal_by_name_too(guest: AgentClient) -> None:
    size = TerminalSize(rows=41, columns=83)
    command = await guest.start_command(
        shell("stty size; echo by name > $(tty); read line; stty size", user="user", terminal=Terminal(size=size))
    )
    seen = b""
    async for event in command.events():
        assert isinstance(event, Output)
        seen += event.data
        if b"by name" in seen:
            break
    assert seen.split() == [b"41", b"83", b"by", b"name"]
    await command.resize(TerminalSize(rows=7, columns=9))
    await command.send_stdin(b"\n")
    assert (await collect(command)).stdout.split() == [b"7", b"9"]


async def test_a_shell_has_job_control(guest: AgentClient) -> None:
    command = await guest.start_command(CommandSpec(argv=["sh", "-i"], user="user", terminal=Terminal()))
    events = command.events()

    async def until_said(wanted: bytes) -> bytes:
        seen = b""
        while wanted not in seen:
            event = await anext(events)
            assert isinstance(event, Output), event
            seen += event.data
        return seen

    await command.send_stdin(b"sh -c 'echo re\"\"ady; exec sleep 4000'\n")
    await until_said(b"ready")
    await command.send_stdin(b"\x1a")
    await until_said(b"Stopped")
    await command.send_stdin(b'fg; echo o""ver\n')
    await until_said(b"sleep 4000")
    await command.send_stdin(b"\x03")
    await command.send_stdin(b'echo o""ver\n')
    await until_said(b"over")
    await command.send_stdin(b"exit 6\n")
    assert (await collect(command)).exit == CommandExit(status=6)


DAEMON = "(setsid sh -c 'exec sleep 4001 > /dev/null 2>&1' &); sleep 0.3"


async def test_what_a_process_has_started_ends_with_it(guest: AgentClient) -> None:
    await run(guest, DAEMON)
    info = await guest.processes.start(shell(DAEMON))
    await guest.processes.wait(ProcessRef(process_id=info.process_id))
    with trio.fail_after(BOOT_LIMIT_S):
        while await sleepers(guest):
            await trio.lowlevel.checkpoint()


async def test_or_is_left_on_request(guest: AgentClient) -> None:
    await run(guest, DAEMON, leave_children=True)
    assert await sleepers(guest) == {"sleep 4001"}
    await run(guest, "killall sleep")


@pytest.mark.parametrize("terminal", [None, Terminal()])
async def test_who_goes_away_ends_all_that_his_command_started(guest: AgentClient, terminal: Terminal | None) -> None:
    script = "(setsid sleep 4002 &); sleep 4003 & echo ready; exec sleep 4004"
    command = await guest.start_command(shell(script, terminal=terminal))
    await anext(command.events())
    other = await guest.processes.start(CommandSpec(argv=["sleep", "4005"]))
    await command.aclose()
    with trio.fail_after(BOOT_LIMIT_S):
        while await sleepers(guest) != {"sleep 4005"}:
            await trio.lowlevel.checkpoint()
    await guest.processes.send_signal(ProcessRef(process_id=other.process_id), signal.SIGKILL)


async def test_a_signal_to_everything_reaches_what_left_the_group(guest: AgentClient) -> None:
    child = "trap 'echo got it; exit' USR1; echo ready; while :; do sleep 0.1; done"
    script = 'trap : USR1; (setsid sh -c "$CHILD" &); while :; do sleep 0.1; done'
    info = await guest.processes.start(shell(script, environment={"CHILD": child}))
    which = ProcessRef(process_id=info.process_id)
    attached = await guest.processes.attach(which, positions=Positions())
    seen = b""
    async for event in attached.events():
        assert isinstance(event, ProcessOutput)
        seen += event.data
        if seen == b"ready\n":
            await guest.processes.send_signal(which, signal.SIGUSR1, everything=True)
        if seen.endswith(b"got it\n"):
            break
    await attached.aclose()
    await guest.processes.send_signal(which, signal.SIGKILL, everything=True)
    assert await guest.processes.wait(which) == CommandExit(signal=signal.SIGKILL)


async def test_a_hundred_at_once(guest: AgentClient) -> None:
    before = await run(guest, "ls /proc/1/fd | wc -l")
    started = [await guest.processes.start(shell(f"echo {n}; exec sleep 4006"), tag=f"n{n}") for n in range(100)]
    listed = {info.process_id: info for info in await guest.processes.list()}
    assert all(listed[info.process_id].exit is None for info in started)
    for number in range(100):
        await guest.processes.send_signal(ProcessRef(tag=f"n{number}"), signal.SIGTERM)
    for number in range(100):
        which = ProcessRef(tag=f"n{number}")
        assert await guest.processes.wait(which) == CommandExit(signal=signal.SIGTERM)
        attached = await guest.processes.attach(which, positions=Positions())
        event = await anext(attached.events())
        assert isinstance(event, ProcessOutput)
        assert event.data == b"%d\n" % number
        await attached.aclose()
        await guest.processes.forget(which)
    assert await run(guest, "ls /proc/1/fd | wc -l") == before


async def test_a_process_survives_its_host_and_goes_on(guest_socket: Path, nursery: trio.Nursery) -> None:
    async def connect() -> AgentClient:
        return await AgentClient.connect(await trio.open_unix_socket(guest_socket), nursery=nursery)

    with trio.fail_after(BOOT_LIMIT_S):
        first = await connect()
        count = "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo $i; done; read line; echo $line"
        await first.processes.start(shell(count), tag="counting")
        attached = await first.processes.attach(ProcessRef(tag="counting"), positions=Positions())
        await anext(attached.events())
        await first.aclose()
        second = await connect()
        await second.processes.send_input(ProcessRef(tag="counting"), b"done\n")
        assert await second.processes.wait(ProcessRef(tag="counting")) == CommandExit(status=0)
        attached = await second.processes.attach(ProcessRef(tag="counting"), positions=Positions())
        data = b"".join([event.data async for event in attached.events() if isinstance(event, ProcessOutput)])
        assert data.split() == [*(b"%d" % number for number in range(1, 201)), b"done"]
        await second.aclose()


async def test_lack_of_memory_is_told(guest: AgentClient) -> None:
    hog = CommandSpec(argv=["python3", "-c", "x = [bytes([1]) * 2**20 for _ in range(1000)]"])
    info = await guest.processes.start(hog)
    ended = await guest.processes.wait(ProcessRef(process_id=info.process_id))
    assert ended == CommandExit(signal=signal.SIGKILL, out_of_memory=True)


async def test_kept_output_does_not_fill_the_memory(guest: AgentClient) -> None:
    script = "head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2"
    for number in range(60):
        info = await guest.processes.start(shell(script), tag=f"full{number}")
        await guest.processes.wait(ProcessRef(process_id=info.process_id))
    listed = [info for info in await guest.processes.list() if info.tag.startswith("full")]
    assert len(listed) == 60
    assert {(info.stdout_end, info.exit) for info in listed} == {(2**20, CommandExit(status=0))}
    kept = [info.stdout_end - info.stdout_kept_from + info.stderr_end - info.stderr_kept_from for info in listed]
    assert kept[-1] == 2 * 2**20
    assert sum(kept) < 64 * 2**20
    assert kept[0] == 0, "what ended first is given up first"
    for info in listed:
        await guest.processes.forget(ProcessRef(process_id=info.process_id))


async def test_root_can_use_the_controllers_of_its_cgroups(guest: AgentClient) -> None:
    await run(guest, "echo '+memory +pids' > /sys/fs/cgroup/cgroup.subtree_control; mkdir /sys/fs/cgroup/mine")
    await run(guest, "echo 20M > /sys/fs/cgroup/mine/memory.max; cat /sys/fs/cgroup/mine/pids.current")
    script = "echo 0 > /sys/fs/cgroup/mine/cgroup.procs; exec python3 -c 'bytearray(40 << 20)'"
    outcome = await collect(await guest.start_command(shell(script)))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL, out_of_memory=True)
    await run(guest, "rmdir /sys/fs/cgroup/mine; echo '-memory -pids' > /sys/fs/cgroup/cgroup.subtree_control")
