"""What one does in a leased VM from the command line: processes, files, ports, by the lease's id or name."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.running import at_a_terminal, vmpool_argv
from tests.terminals import at_terminal
from tests.unit.cli.command import Done, environment, vmpool
from tests.unit.cli.scripted import Answer, ScriptedService
from tests.unit.rpc.served import Served
from tests.waiting import until
from vmpool import Vm, connect
from vmpool.wire.generated.vmpool import v1 as wire


@pytest.fixture
async def vm(served: Served) -> AsyncIterator[Vm]:
    """Leased by another program, under the name `work`."""
    async with connect(served.path) as pool:
        yield await pool.acquire(name="work", labels={"job": "7"})


async def ok(served: Served, *line: str, stdin: bytes = b"") -> str:
    """What it prints; it must have nothing to complain of."""
    done = await run(served, *line, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), line
    return done.stdout


async def run(served: Served, *line: str, stdin: bytes = b"") -> Done:
    with trio.fail_after(60):
        done = await trio.run_process(
            vmpool_argv(*line),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(served.path),
        )
    return Done(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode())


# -- leases ----------------------------------------------------------------------------------------------------------


async def test_a_lease_has_a_name_by_which_it_is_found(served: Served) -> None:
    lease_id = (await ok(served, "acquire", "--name", "work", "--label", "job=7")).strip()
    assert await ok(served, "exec", "work", "--", "echo", "here") == "here\n"
    assert await ok(served, "exec", lease_id, "--", "echo", "here") == "here\n"
    table = (await ok(served, "leases")).splitlines()
    assert table[0].split() == ["LEASE", "NAME", "VM", "PROFILE", "UID", "AGE", "ENDS", "LABELS"]
    assert table[1].split()[:2] == [lease_id, "work"]
    assert table[1].endswith("  job=7")
    await ok(served, "renew", "work", "--ttl", "60")
    await ok(served, "release", "work")
    assert served.coordinator.leases() == ()


async def test_leases_are_listed_by_labels(served: Served, vm: Vm) -> None:
    other = (await ok(served, "acquire")).strip()
    assert await ok(served, "leases", "-q") == f"{vm.lease_id}\n{other}\n"
    assert await ok(served, "leases", "-q", "--label", "job=7") == f"{vm.lease_id}\n"
    assert await ok(served, "leases", "-q", "--label", "job=8") == ""
    (found,) = json.loads(await ok(served, "leases", "--json", "--label", "job=7"))
    assert (found["lease_id"], found["name"]) == (vm.lease_id, "work")


@pytest.mark.parametrize(
    "line",
    [
        ("exec", "nil", "--", "true"),
        ("start", "nil", "--", "true"),
        ("ps", "nil"),
        ("logs", "nil", "1"),
        ("attach", "nil", "1"),
        ("kill", "nil", "1"),
        ("cp", "nil:/x", "-"),
        ("ls", "nil"),
        ("forward", "nil", "80"),
        ("wait-port", "nil", "80"),
        ("metrics", "nil"),
        ("renew", "nil", "--ttl", "60"),
    ],
    ids=lambda line: line[0],
)
async def test_a_lease_that_is_not_there_is_named(served: Served, line: tuple[str, ...]) -> None:
    done = await run(served, *line)
    assert done.returncode == (125 if line[0] == "exec" else 1)
    assert done.stderr == "vmpool: lease: there is none with the id or name 'nil'\n"


async def test_a_profile_or_lease_that_is_not_there_is_named(served: Served) -> None:
    done = await run(served, "shell", "nil")
    assert done.returncode == 125
    assert "'nil'" in done.stderr


async def test_a_console_is_found_by_lease_and_by_vm(served: Served, vm: Vm) -> None:
    for target in ("work", vm.lease_id, vm.vm_id):
        assert "Linux version simulated" in await ok(served, "console", target)


async def test_a_vm_tells_what_it_uses(served: Served, vm: Vm) -> None:
    assert "memory" in await ok(served, "metrics", "work")
    assert json.loads(await ok(served, "metrics", "work", "--json"))["cpus_online"] == 1


# -- processes -------------------------------------------------------------------------------------------------------


async def test_a_started_process_goes_on(served: Served, vm: Vm) -> None:
    number = (await ok(served, "start", "work", "--tag", "copy", "--", "cat")).strip()
    assert number.isdigit()
    rows = (await ok(served, "ps", "work")).splitlines()
    assert rows[0].split() == ["ID", "PID", "TAG", "USER", "STATUS", "COMMAND"]
    assert rows[1].split()[2:] == ["copy", "root", "running", "cat"]
    process = await vm.process("copy")
    await process.send_input(b"one\n", close=True)
    assert await ok(served, "logs", "-f", "work", "copy") == "one\n"
    assert await ok(served, "logs", "work", number) == "one\n"
    assert await ok(served, "logs", "--tail", "3", "work", number) == "ne\n"
    assert (await ok(served, "ps", "work")).splitlines() == ["ID  PID  TAG  USER  STATUS  COMMAND".replace("  ", "  ")]
    assert "ended with status 0" in await ok(served, "ps", "--all", "work")


async def test_a_process_is_killed_by_its_tag(served: Served, vm: Vm) -> None:
    process = await vm.start(["sleep", "1000"], tag="idle")
    await ok(served, "kill", "work", "idle")
    assert (await process.wait()).signal == 15
    process = await vm.start(["sleep", "1000"], tag="idle")
    await ok(served, "kill", "-s", "KILL", "--all", "work", str(process.process_id))
    assert (await process.wait()).signal == 9
    done = await run(served, "kill", "work", "idle")
    assert done.returncode == 1
    assert done.stderr.startswith("vmpool: ")


async def test_somebody_attaches_and_has_its_exit_code(served: Served, vm: Vm) -> None:
    process = await vm.start(["cat"], tag="copy")
    argv = at_a_terminal(vmpool_argv("attach", "work", "copy"))
    async with trio.open_nursery() as nursery:

        async def finish() -> None:
            await until(lambda: _written(vm, b"typed\n"))
            await process.send_input(b"", close=True)

        nursery.start_soon(finish)
        with trio.fail_after(60):
            done = await trio.run_process(
                argv, stdin=b"typed\n", capture_stdout=True, capture_stderr=True, env=environment(served.path)
            )
    assert (done.stdout, done.stderr) == (b"typed\n", b"")


async def _written(vm: Vm, data: bytes) -> bool:
    return (await (await vm.process("copy")).output()).stdout == data


# -- files -----------------------------------------------------------------------------------------------------------


async def test_a_file_goes_in_and_comes_out(served: Served, vm: Vm, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(b"\0\xff" * 100_000)
    await ok(served, "cp", str(there), "work:/app/data")
    await ok(served, "cp", "work:/app/data", str(back))
    assert back.read_bytes() == there.read_bytes()
    await ok(served, "cp", str(there), "work:/app/")
    assert await ok(served, "ls", "work:/app") == "data\nthere\n"
    back.unlink()
    back.mkdir()
    await ok(served, "cp", "work:/app/data", str(back))
    assert (back / "data").read_bytes() == there.read_bytes()


async def test_a_tree_goes_in_and_comes_out(served: Served, vm: Vm, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_text("x")
    (tree / "link").symlink_to("deep/file")
    await ok(served, "cp", str(tree), "work:/copy")
    assert await ok(served, "ls", "-R", "work:/copy") == "deep\ndeep/file\nlink\n"
    await ok(served, "cp", str(tree), "work:/copy")
    assert "tree/link" in await ok(served, "ls", "-R", "work:/copy")
    await ok(served, "cp", f"{tree}/.", "work:/copy/tree/deep")
    assert "tree/deep/link" in await ok(served, "ls", "-R", "work:/copy")
    await ok(served, "cp", "work:/copy", str(tmp_path / "out"))
    assert (tmp_path / "out/link").readlink() == Path("deep/file")
    assert (tmp_path / "out/tree/deep/deep/file").read_text() == "x"


async def test_a_dash_is_stdin_or_stdout(served: Served, vm: Vm, tmp_path: Path) -> None:
    await ok(served, "cp", "-", "work:/a/file", stdin=b"from a pipe")
    assert await ok(served, "cp", "work:/a/file", "-") == "from a pipe"
    tar = (await ok(served, "cp", "work:/a", "-")).encode("utf-8", "surrogateescape")
    await ok(served, "cp", "-", "work:/b/", stdin=tar)
    assert await ok(served, "cp", "work:/b/file", "-") == "from a pipe"
    done = await run(served, "cp", "-", "work:/a", stdin=b"x")
    assert done.returncode == 1
    assert done.stderr == ("vmpool: /a is a directory: name a file in it, or, to extract a tar stream there, /a/\n")


async def test_what_is_not_there_is_named(served: Served, vm: Vm, tmp_path: Path) -> None:
    done = await run(served, "cp", "work:/none", str(tmp_path))
    assert done.returncode == 1
    assert "/none" in done.stderr
    done = await run(served, "cp", str(tmp_path / "none"), "work:/x")
    assert (done.returncode, done.stderr) == (1, f"vmpool: {tmp_path}/none: No such file or directory\n")
    done = await run(served, "cp", "work:/proc/uptime", str(tmp_path / "no/where"))
    assert done.returncode == 1
    done = await run(served, "ls", "work:/none")
    assert done.returncode == 1
    assert "/none" in done.stderr


async def test_a_listing_says_as_much_as_is_wanted(served: Served, vm: Vm) -> None:
    await vm.files.write("/d/.hidden", "x")
    await vm.files.write("/d/file\x1b[2J", "four", mode=0o640)
    await vm.files.symlink("/d/link", "file")
    assert (await ok(served, "ls", "work", "/d")).splitlines() == ["file\\x1b[2J", "link"]
    assert (await ok(served, "ls", "-a", "work", "/d")).splitlines()[0] == ".hidden"
    table = (await ok(served, "ls", "-l", "work:/d")).splitlines()
    assert table[0].startswith("-rw-r-----")
    assert table[1].endswith("link -> file")
    found = {file["path"]: file for file in json.loads(await ok(served, "ls", "--json", "work:/d"))}
    assert found["/d/file\x1b[2J"]["size"] == 4
    assert await ok(served, "ls", "work:/d/link") == "link\n"


# -- ports -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def forwarding(served: Served, *line: str) -> AsyncIterator[str]:
    """What `forward` prints first; it is ended by Ctrl-C."""
    process = await trio.lowlevel.open_process(
        at_a_terminal([*vmpool_argv("forward", *line)]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(served.path),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        try:
            with trio.fail_after(60):
                yield (await process.stdout.receive_some()).decode()
                process.send_signal(signal.SIGINT)
                assert b"".join([data async for data in process.stderr]) == b"vmpool: interrupted\n"
                assert await process.wait() == 130
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_a_port_of_the_guest_is_one_of_this_host(served: Served, vm: Vm) -> None:
    async with vm.exec(["nc", "-ll", "-p", "7000", "-e", "cat"]):
        await ok(served, "wait-port", "work", "7000")
        async with forwarding(served, "work", ":7000") as said:
            address, arrow, *rest = said.split()
            assert (arrow, rest) == ("->", ["7000", "in", "the", "guest"])
            host, _, port = address.rpartition(":")
            assert await echoed(await trio.open_tcp_stream(host, int(port))) == b"hello"


async def test_a_unix_socket_of_this_host_leads_to_a_port(served: Served, vm: Vm, vm_home: Path) -> None:
    async with vm.exec(["nc", "-ll", "-p", "7000", "-e", "cat"]):
        await ok(served, "wait-port", "work", "7000")
        path = vm_home / "forwarded"
        async with forwarding(served, "work", f"{path}:7000") as said:
            assert said == f"{path} -> 7000 in the guest\n"
            assert await echoed(await trio.open_unix_socket(str(path))) == b"hello"
    assert not path.exists()


async def echoed(stream: trio.SocketStream) -> bytes:
    async with stream:
        await stream.send_all(b"hello")
        await stream.send_eof()
        return b"".join([data async for data in stream])


async def test_the_reverse_leads_to_a_server_of_this_host(served: Served, vm: Vm) -> None:
    async with trio.open_nursery() as nursery:

        async def answer(stream: trio.SocketStream) -> None:
            await stream.send_all(b"from the host")
            await stream.aclose()

        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with forwarding(served, "work", "--reverse", f"{port}:9000") as said:
            assert said == f"127.0.0.1:9000 in the guest -> 127.0.0.1:{port}\n"
            assert (await vm.run(["nc", "127.0.0.1", "9000"])).stdout == "from the host"
        nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_named(served: Served, vm: Vm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await run(served, "forward", "work", f"{port}:80")
    assert (done.returncode, done.stderr) == (
        1,
        f"vmpool: cannot listen on 127.0.0.1:{port}: Address already in use\n",
    )


async def test_a_forward_ends_with_its_lease(served: Served, vm: Vm) -> None:
    process = await trio.lowlevel.open_process(
        vmpool_argv("forward", "work", ":80"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(served.path),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        with trio.fail_after(60):
            await process.stdout.receive_some()
            await vm.release()
            said = b"".join([data async for data in process.stderr])
            assert await process.wait() == 1
    assert vm.lease_id in said.decode()


async def test_a_port_that_nobody_listens_on_is_waited_for_so_long(served: Served, vm: Vm) -> None:
    done = await run(served, "wait-port", "work", "81", "--timeout", "0.1")
    assert done.returncode == 1
    assert done.stderr.startswith("vmpool: ")


# -- what a command is told ------------------------------------------------------------------------------------------


async def test_options_of_a_command_reach_the_guest(service: ScriptedService) -> None:
    ended = wire.ExecReply(exit=wire.ExecExit(status=0))
    service.answers["Exec"] = lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), ended))
    options = ("--user", "user", "--group", "a", "--group", "7", "--limit", "nofile=9:unlimited", "--leave-children")
    done = await vmpool(service.path, "exec", "lease-1", *options, "--shell", "--", "ls", "| wc")
    assert (done.returncode, done.stderr) == (0, "")
    (request,) = await service.called("Exec")
    start = request.start
    assert (start.shell, start.argv) == ("ls | wc", [])
    assert (start.user, start.groups, start.leave_children) == ("user", ["a", "7"], True)
    assert start.limits == [wire.ResourceLimit(name="nofile", soft=9, hard=2**64 - 1)]


async def test_stdin_that_is_short_is_sent_with_the_start(service: ScriptedService) -> None:
    ended = wire.ExecReply(exit=wire.ExecExit(status=0))
    service.answers["Exec"] = lambda _: Answer((wire.ExecReply(started=wire.ExecStarted()), ended))
    argv = vmpool_argv("exec", "lease-1", "--stdin-first", "--", "cat")
    await trio.run_process(argv, stdin=b"all of it", env=environment(service.path))
    (request,) = await service.called("Exec")
    assert request.start.stdin == b"all of it"
    assert await service.later("Exec") == [wire.ExecRequest(close_stdin=wire.CloseStdin())]


async def test_progress_is_shown_to_somebody_who_watches(served: Served, vm: Vm, tmp_path: Path) -> None:
    source = tmp_path / "some[bold]thing"
    source.write_bytes(b"x" * 1_000_000)
    line = vmpool_argv("cp", str(source), "work:/data")
    variables = environment(served.path) | {"TERM": "xterm"}
    async with at_terminal(line, environment=variables, columns=200) as terminal:
        await terminal.until(r"some\[bold\]thing.*MB")
        assert await terminal.ended() == 0
    assert (await vm.files.stat("/data")).size == 1_000_000
