"""One scenario from trio, from asyncio and from plain threads: the same steps, the same results."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmpool
import vmpool.aio
import vmpool.sync
from tests.leaks import nothing_left
from tests.trees import make_tree, seen
from tests.unit.sdk.beside import Held, ServedBeside, held_of, serving_beside
from tests.unit.sdk.faces import FACES, Play, in_thread
from vmpool import CommandExit, FileChangeKind, FileKind, OutputStream, ProcessOutput, UnsafeTreeError

ROOT = Path(vmpool.__file__).parents[1]


@pytest.fixture
def service(vm_home: Path) -> Iterator[ServedBeside]:
    with nothing_left(), serving_beside(vm_home) as service:
        yield service
        service.until_held(Held())


@pytest.fixture(params=FACES)
def play(request: pytest.FixtureRequest) -> Play[Any]:
    return FACES[request.param]


PORT = 7000
ECHO = f"nc -ll -p {PORT} -e cat"
"""A server in the guest: it sends back what it gets, and ends its side when the other side has ended."""


def echo_server() -> tuple[threading.Thread, int]:
    """On this host, for one connection: sends back what it gets, in capitals."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data.upper())
                connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, server.getsockname()[1]


class TestCommands:
    def test_what_a_command_writes(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                shell = await vm.run("echo one  two")
                argv = await vm.run(["echo", "one  two"])
                await vm.files.write("/raw", b"\xff")
                bytes_ = await vm.run(["cat", "/raw"], encoding=None)
                text = await vm.run(["cat", "/raw"])
                return shell.stdout, argv.stdout, bytes_.stdout, text.stdout, shell.exit

        assert play(scenario) == ("one two\n", "one  two\n", b"\xff", "\ufffd", CommandExit(status=0))

    @pytest.mark.parametrize(
        "stdin",
        [
            lambda: "grün",
            lambda: b"gr\xc3\xbcn",
            lambda: io.BytesIO(b"gr\xc3\xbcn"),
            lambda: iter([b"gr", b"\xc3\xbc", b"n"]),
        ],
    )
    def test_its_stdin(self, service: ServedBeside, play: Play[Any], stdin: Any) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                return (await vm.run("cat", input=stdin())).stdout

        assert play(scenario) == "grün"

    @pytest.mark.parametrize("stdin", [b"first", b""])
    def test_stdin_that_is_known_beforehand(self, service: ServedBeside, play: Play[Any], stdin: bytes) -> None:
        async def scenario(face: Any) -> Any:
            async with (
                face.connect(service.path) as pool,
                pool.vm() as vm,
                vm.exec(["cat"], stdin=stdin) as command,
            ):
                return (await command.collect()).stdout

        assert play(scenario) == stdin

    def test_no_stdin_is_an_empty_one(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                return (await vm.run("cat")).stdout

        assert play(scenario) == ""

    def test_much_goes_in_and_out_at_the_same_time(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                return len((await vm.run("cat", input=b"x" * 3_000_000)).stdout)

        assert play(scenario) == 3_000_000

    def test_a_callback_gets_output_as_it_comes(self, service: ServedBeside, play: Play[Any]) -> None:
        seen: list[bytes] = []
        threads = set()

        def see(data: bytes) -> None:
            seen.append(data)
            threads.add(threading.current_thread())

        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                return (await vm.run("cat", input=b"x" * 200_000, on_stdout=see)).stdout

        assert play(scenario) == b"".join(seen).decode()
        assert threads == {threading.current_thread()}

    def test_what_a_callback_raises_ends_the_command(self, service: ServedBeside, play: Play[Any]) -> None:
        def fail(data: bytes) -> None:
            raise LookupError("enough")

        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(LookupError, match="enough"):
                    await vm.run("yes", on_stdout=fail)

        play(scenario)

    def test_too_much_output_ends_the_command(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(vmpool.OutputTooLargeError, match="max_output, 10000 bytes") as caught:
                    await vm.run("yes", max_output=10_000)
                return caught.value.stdout[:4]

        assert play(scenario) == b"y\ny\n"

    def test_a_command_that_fails(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                assert (await vm.run("false")).status == 1
                with pytest.raises(
                    vmpool.CommandError, match=r"^cat /none: ended with status 1: .*No such file"
                ) as caught:
                    await vm.run("cat /none", check=True)
                return caught.value.completed.stderr

        assert play(scenario) == "cat: can't open '/none': No such file or directory\n"

    def test_a_time_limit(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(vmpool.CommandError, match="did not end within its time limit"):
                    await vm.run("sleep 100", timeout=0.01, check=True)
                return (await vm.run("sleep 100", timeout=0.01)).exit

        assert play(scenario) == CommandExit(signal=9, timed_out=True)

    def test_a_program_that_is_not_there(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(FileNotFoundError):
                    await vm.run(["nonesuch"])

        play(scenario)

    def test_a_command_to_talk_to(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm, vm.exec("cat") as process:
                await process.send_stdin(b"abc")
                await process.close_stdin()
                return [event async for event in process.events()]

        output, ended = play(scenario)
        assert (output.stream, output.data, ended) == (OutputStream.STDOUT, b"abc", CommandExit(status=0))

    def test_a_command_ends_with_its_block(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                async with vm.exec(["sleep", "1000"]):
                    assert service.held().processes == (("sleep", "1000"),)
                service.until_held(Held(leases=(vm.lease_id,), calls=1))

        play(scenario)


class TestDetachedProcesses:
    def test_one_outlives_who_started_it(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool:
                vm = await pool.acquire(name="build")
                await vm.start("cat", tag="server")
            async with face.connect(service.path) as pool:
                vm = await pool.get("build")
                process = await vm.process("server")
                await process.send_input(b"hello")
                async with process.attach() as attachment:
                    await anext(attachment.events())
                kept = await process.output()
                await process.kill()
                ended = await process.wait()
                await process.forget()
                left = await vm.processes()
                await vm.release()
                return kept.stdout, ended, left

        assert play(scenario) == (b"hello", CommandExit(signal=signal.SIGKILL), [])

    def test_following_one_from_a_position(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                process = await vm.start("echo hello", keep_bytes=3)
                await process.wait()
                async with process.attach(from_=2) as attachment:
                    return [event async for event in attachment.events()]

        output, ended = play(scenario)
        assert output == ProcessOutput(stream=OutputStream.STDOUT, data=b"lo\n", position=3, lost=1)
        assert ended == CommandExit(status=0)

    def test_following_goes_on_after_the_connection_breaks(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool:
                vm = await pool.acquire()
                process = await vm.start("cat")
                await process.send_input(b"before ")
                async with process.attach() as attachment:
                    events = attachment.events()
                    first = await anext(events)
                    service.break_connections()
                    async with face.connect(service.path) as other:
                        same = await (await other.get(vm.lease_id)).process(process.process_id)
                        await same.send_input(b"after", close=True)
                    rest = [event async for event in events]
                await vm.release()
                return first.data + rest[0].data, rest[-1]

        assert play(scenario) == (b"before after", CommandExit(status=0))

    def test_waiting_for_one_that_goes_on(self, service: ServedBeside, play: Play[Any], monkeypatch: Any) -> None:
        monkeypatch.setattr("vmpool.client.connection.LATE_ANSWER_S", 0.05)

        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                process = await vm.start("sleep 1000")
                with pytest.raises(TimeoutError):
                    await process.wait(timeout=0.05)

        play(scenario)

    def test_one_that_is_not_there(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(vmpool.CallError, match="tag 'server'") as caught:
                    await vm.process("server")
                assert caught.value.status == "NOT_FOUND"
                process = await vm.start("echo gone")
                await process.wait()
                await process.forget()
                with pytest.raises(ProcessLookupError):
                    await process.wait()

        play(scenario)


class TestFiles:
    def test_what_is_written_is_read(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                info = await vm.files.write("/deep/below/a", "grün", mode=0o600)
                await vm.files.write(b"/odd-\xff", iter([b"x" * 100_000, b"", b"y"]))
                text = await vm.files.read_text("/deep/below/a")
                part = await vm.files.read("/odd-\udcff", offset=99_999, length=2)
                async with vm.files.open_read("/odd-\udcff") as reader:
                    pieces = [piece async for piece in reader]
                return info.mode, text, part, b"".join(pieces) == b"x" * 100_000 + b"y"

        assert play(scenario) == (0o600, "grün", b"xy", True)

    def test_what_the_guest_refuses_is_what_python_raises(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.make_directory("/d")
                with pytest.raises(FileNotFoundError) as missing:
                    await vm.files.read("/none")
                assert (missing.value.errno, missing.value.filename) == (2, "/none")
                with pytest.raises(IsADirectoryError):
                    await vm.files.write("/d", b"")
                with pytest.raises(FileExistsError):
                    await vm.files.write("/a", b"", how=vmpool.WriteMode.CREATE)
                    await vm.files.write("/a", b"", how=vmpool.WriteMode.CREATE)
                with pytest.raises(vmpool.CallError, match="path: 'relative' is relative"):
                    await vm.files.stat("relative")
                assert not await vm.files.exists("/none")

        play(scenario)

    def test_a_listing(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.write("/d/a", b"123")
                await vm.files.make_directory("/d/b")
                found = [(info.name, info.kind, info.size) for info in await vm.files.list("/d")]
                await vm.files.remove("/d")
                return sorted(found), await vm.files.exists("/d")

        (a, b), there = play(scenario)
        assert a == ("a", FileKind.REGULAR, 3)
        assert b[:2] == ("b", FileKind.DIRECTORY)
        assert not there

    def test_a_watch(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.make_directory("/d")
                async with vm.files.watch("/d") as changes:
                    await vm.files.make_directory("/d/new")
                    change = await anext(changes)
                    return change.kind, change.path

        assert play(scenario) == (FileChangeKind.CREATED, "/d/new")

    def test_a_tree_there_and_back(self, service: ServedBeside, play: Play[Any], tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", 20)
        told: list[int] = []

        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.upload(tmp_path / "tree", "/t", owners=True, progress=told.append)
                await vm.files.download("/t", tmp_path / "back")

        play(scenario)
        assert seen(tmp_path / "back") == seen(tmp_path / "tree")
        assert told == sorted(told)
        assert told[-1] >= 4

    def test_a_file_there_and_back(self, service: ServedBeside, play: Play[Any], tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(b"x" * 1_000_000)
        (tmp_path / "one").chmod(0o640)

        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.upload(tmp_path / "one", "/a/one")
                await vm.files.download("/a/one", tmp_path / "two")
                with pytest.raises(FileNotFoundError):
                    await vm.files.download("/none", tmp_path / "three")
                with pytest.raises(FileNotFoundError):
                    await vm.files.upload(tmp_path / "none", "/none")

        play(scenario)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
        assert (tmp_path / "two").stat().st_mode & 0o777 == 0o640
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]

    def test_a_tree_that_would_leave_its_directory(
        self, service: ServedBeside, play: Play[Any], tmp_path: Path
    ) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.files.make_directory("/t")
                await vm.files.symlink("/t/out", "/etc")
                with pytest.raises(UnsafeTreeError, match=r"'out' is a link to '/etc', outside"):
                    await vm.files.download("/t", tmp_path / "back")

        play(scenario)


class TestPorts:
    def test_a_forward_carries_many_at_once_and_the_end_of_each_direction(
        self, service: ServedBeside, play: Play[Any]
    ) -> None:
        def talk(address: Any) -> list[bytes]:
            clients = [socket.create_connection(address) for _ in range(3)]
            answers = []
            for number, client in enumerate(clients):
                client.sendall(b"hello %d" % number)
                client.shutdown(socket.SHUT_WR)
            for client in clients:
                with client, client.makefile("rb") as file:
                    answers.append(file.read())
            return answers

        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm, vm.forward(PORT) as forward:
                await vm.start(ECHO)
                await vm.wait_port(PORT)
                return await in_thread(face, talk, forward.address)

        assert play(scenario) == [b"hello 0", b"hello 1", b"hello 2"]

    def test_a_forward_at_a_path_is_this_users_and_goes_with_its_block(
        self, service: ServedBeside, play: Play[Any], vm_home: Path
    ) -> None:
        path = vm_home / "forward.sock"

        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm, vm.forward(1, path=path) as forward:
                return str(forward), path.stat().st_mode & 0o777

        assert play(scenario) == (str(path), 0o600)
        assert not path.exists()

    def test_a_port_where_nobody_listens(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                with pytest.raises(ConnectionRefusedError):
                    async with vm.connect_port(PORT):
                        pass

        play(scenario)

    def test_a_stream_of_ones_own(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.start(ECHO)
                await vm.wait_port(PORT)
                async with vm.connect_port(PORT) as stream:
                    await stream.send("abc")
                    await stream.send_eof()
                    received = b""
                    while data := await stream.receive():
                        received += data
                    return received

        assert play(scenario) == b"abc"

    def test_what_the_caller_offers_is_reached_from_the_guest(self, service: ServedBeside, play: Play[Any]) -> None:
        server, port = echo_server()

        async def scenario(face: Any) -> Any:
            async with (
                face.connect(service.path) as pool,
                pool.vm() as vm,
                vm.reverse(0, ("127.0.0.1", port)) as guest,
            ):
                return (await vm.run(["nc", "127.0.0.1", str(guest.port)], input="from inside")).stdout

        assert play(scenario) == "FROM INSIDE"
        server.join()


class TestLeases:
    def test_a_pool_says_where_its_service_is(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with face.connect(service.path) as pool:
                return pool.socket_path

        assert play(scenario) == service.path

    def test_by_name_id_and_labels(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> Any:
            async with (
                face.connect(service.path) as pool,
                pool.vm(name="a", labels={"job": "7"}) as vm,
                pool.vm(name="b"),
            ):
                by_name = await pool.get("a")
                by_id = await pool.get(vm.lease_id)
                with pytest.raises(vmpool.CallError, match="'c'"):
                    await pool.get("c")
                found = await pool.leases({"job": "7"})
                return by_name.vm_id == by_id.vm_id == vm.vm_id, [each.name for each in found]

        assert play(scenario) == (True, ["a"])

    def test_a_lease_that_is_released_in_its_block(self, service: ServedBeside, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            async with face.connect(service.path) as pool, pool.vm() as vm:
                await vm.release()
                with pytest.raises(vmpool.CallError):
                    await vm.release()

        play(scenario)

    def test_no_service(self, vm_home: Path, play: Play[Any]) -> None:
        async def scenario(face: Any) -> None:
            with pytest.raises(vmpool.ServiceUnavailableError, match="does not exist"):
                async with face.connect(vm_home / "none.sock"):
                    pass

        play(scenario)


class TestWithoutABlock:
    """As in a notebook."""

    def test_asyncio_awaits_what_it_opens(self, service: ServedBeside) -> None:
        async def cells() -> str:
            pool = await vmpool.aio.connect(service.path)
            vm = await pool.vm()
            output = (await vm.run("echo hello")).stdout
            await vm.aclose()
            await vm.aclose()
            await pool.aclose()
            return output

        assert asyncio.run(cells()) == "hello\n"

    def test_threads_close_what_they_open(self, service: ServedBeside) -> None:
        pool = vmpool.sync.connect(service.path)
        vm = pool.vm()
        assert vm.run("echo hello").stdout == "hello\n"
        pool.close()
        vm.close()
        with pytest.raises(vmpool.ClientError, match="closed"):
            vm.run("true")

    @pytest.mark.parametrize("end", ["", "del pool, vm"])
    def test_what_is_never_closed_ends_with_the_program(self, service: ServedBeside, end: str) -> None:
        script = (
            f"import sys, vmpool.sync\npool = vmpool.sync.connect(sys.argv[1])\nvm = pool.vm()\n{end}\nprint('end')\n"
        )
        done = _python(script, str(service.path))
        assert (done.stdout, done.stderr) == ("end\n", "")
        service.until_held(Held())


class TestThreads:
    def test_many_threads_use_one_connection(self, service: ServedBeside) -> None:
        outputs: list[str] = []
        with vmpool.sync.connect(service.path) as pool:

            def work(number: int) -> None:
                with pool.vm() as vm:
                    outputs.append(vm.run(["echo", str(number)]).stdout)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(outputs, key=int) == [f"{number}\n" for number in range(20)]

    def test_a_callback_may_call(self, service: ServedBeside) -> None:
        found: list[str] = []
        with vmpool.sync.connect(service.path) as pool, pool.vm() as vm:
            vm.run("echo outer", on_stdout=lambda _: found.append(vm.run("echo inner").stdout))
        assert found == ["inner\n"]

    @pytest.mark.parametrize(
        "call", ["vm.run('sleep 1000')", "vm.start('echo x').attach(None).wait(); vm.run('cat', input=slow())"]
    )
    def test_ctrl_c_ends_the_call_and_what_it_had_begun(self, service: ServedBeside, call: str) -> None:
        script = (
            "import os, signal, sys, threading, time, vmpool.sync\n"
            "def slow():\n"
            "    yield b'x'\n"
            "    time.sleep(1000)\n"
            "with vmpool.sync.connect(sys.argv[1]) as pool, pool.vm() as vm:\n"
            "    print('ready', flush=True)\n"
            "    try:\n"
            f"        {call}\n"
            "    except KeyboardInterrupt:\n"
            "        print('interrupted', vm.run('echo still here').stdout.strip(), flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(service.path)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            service.until(lambda served: bool(held_of(served).processes))
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted still here\n"
        assert process.returncode == 0


def test_asyncio_and_threads_do_without_trio() -> None:
    for module in ("vmpool.aio", "vmpool.sync"):
        done = _python(f"import sys, {module}; print('trio' in sys.modules)")
        assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_faces_are_what_is_made_of_the_asyncio_one() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/faces", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_faces_have_the_same_names() -> None:
    only = {"open_client", "Client", "RemoteCommand", "Opening"}
    assert set(vmpool.__all__) - only == set(vmpool.aio.__all__) - only == set(vmpool.sync.__all__) - only


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PYTHONPATH": str(ROOT)},
    )
