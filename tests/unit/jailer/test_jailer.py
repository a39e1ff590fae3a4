"""The process that starts QEMU: what it hands on, what it takes away, and what becomes of its own end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import psutil
import pytest

from tests.leaks import nothing_left
from tests.unit.confinement.jailed import SPEC, jailer_alone, start
from vmm.errors import JailError
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.jailer import client, kernel, protocol
from vmm.qemu.jailer.__main__ import _serve
from vmm.qemu.jailer.children import end_all
from vmm.qemu.jailer.client import Jailer
from vmm.qemu.jailer.protocol import Request

SHOW = """
import json, os, resource, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:], "environment": dict(os.environ), "directory": os.getcwd(),
    "leads": os.getsid(0) == os.getpid(), "parent": os.getppid(),
    "open": [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")],
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
}))
"""


@pytest.fixture(autouse=True)
def _checked_for_leaks() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def confinement() -> Iterator[Confinement]:
    with jailer_alone() as confinement:
        yield confinement


def request_for(*argv: str) -> Request:
    """With nothing taken away."""
    return Request(
        program=argv[0],
        argv=list(argv),
        environment={},
        descriptors=[],
        readable=[],
        writable=[],
        entrances=[],
        identity=None,
        namespaces=[],
        files={"programs": [], "devices": []},
        landlock=False,
        filter=False,
        max_file_bytes=None,
    )


def process_of(confinement: Confinement) -> psutil.Process:
    """The jailer's."""
    assert confinement.jailer is not None
    assert confinement.jailer._process is not None
    return psutil.Process(confinement.jailer._process.pid)


async def seen_by_a_program(
    confinement: Confinement, log: Path, *arguments: str, inherited: tuple[int, ...] = ()
) -> dict[str, Any]:
    argv = [sys.executable, "-I", "-S", "-c", SHOW, *arguments]
    process = confinement.spawn(argv, spec=SPEC, group=VmGroup(), log=log, readable=(), inherited=inherited)
    report = await process.wait_exited()
    assert report.status == 0, report.stderr_tail
    found = json.loads(report.stderr_tail)
    assert isinstance(found, dict)
    return found


async def test_the_program_gets_its_arguments_as_they_are(confinement: Confinement, tmp_path: Path) -> None:
    report = await start(confinement, "printf", "<%s>", "a b", "", "$HOME", "*", log=tmp_path / "log").wait_exited()
    assert report.stderr_tail == "<a b><><$HOME><*>"


async def test_it_is_a_child_of_ours_in_a_session_of_its_own(confinement: Confinement, tmp_path: Path) -> None:
    seen = await seen_by_a_program(confinement, tmp_path / "log", "a b", "")
    assert (seen["arguments"], seen["parent"], seen["leads"]) == (["a b", ""], os.getpid(), True)
    assert (seen["directory"], seen["blocked"]) == ("/", [])


async def test_it_has_the_descriptors_that_it_is_given_and_no_other(confinement: Confinement, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    try:
        seen = await seen_by_a_program(confinement, tmp_path / "log", inherited=(theirs,))
    finally:
        os.close(ours)
        os.close(theirs)
    assert seen["open"] == [0, 1, 2, theirs]


async def test_there_need_be_no_room_above_the_highest_of_them(
    tmp_path: Path,
) -> None:
    """As in a service that has used up its limit, or whose limit is low."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with jailer_alone() as confinement:
            low = os.pipe()
            highest = fcntl.fcntl(low[0], fcntl.F_DUPFD_CLOEXEC, 255)
            seen = await seen_by_a_program(confinement, tmp_path / "log", inherited=(*low, highest))
            for each in (*low, highest):
                os.close(each)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert seen["open"] == [0, 1, 2, *low, highest]


async def test_of_our_environment_it_has_what_finds_programs(
    confinement: Confinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("QEMU_MODULE_DIR", "/opt/modules")
    seen = await seen_by_a_program(confinement, tmp_path / "log")
    assert set(seen["environment"]) - {"LC_CTYPE"} <= {"PATH", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR"}
    assert seen["environment"]["QEMU_MODULE_DIR"] == "/opt/modules"


def test_a_program_that_is_not_there_is_an_error_and_nothing_is_left(confinement: Confinement, tmp_path: Path) -> None:
    with pytest.raises(JailError, match=r"execute: .*No such file.*") as caught:
        start(confinement, "/nowhere/qemu", log=tmp_path / "log")
    assert (caught.value.stage, caught.value.errno) == ("execute", 2)


def test_a_command_line_that_is_too_long_is_an_error_and_ends_no_jailer(
    confinement: Confinement, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JailError, match="execute"):
        start(confinement, "/nowhere/qemu", log=tmp_path / "1")
    before = psutil.Process().children()
    with pytest.raises(JailError, match=r"request: .* bytes exceed the maximum of 131072; shorten") as caught:
        start(confinement, "/bin/true", *["x" * 70_000] * 2, log=tmp_path / "2")
    assert caught.value.errno == errno.E2BIG
    assert (psutil.Process().children(), capfd.readouterr().err) == (before, "")


KEEPS_A_SECRET = """
import os, pathlib, sys
sys.path.insert(0, {house!r})
from tests.unit.confinement.jailed import jailer_alone, start
from vmm.qemu.jailer.kernel import _call
JOIN, READ, SESSION = 1, 11, -3
keyctl, add_key = {numbers!r}
_call(keyctl, JOIN, None)
key = _call(add_key, b"user", b"vmpool", b"secret", 6, SESSION)
reads = f"import ctypes; print(ctypes.CDLL(None).syscall({{keyctl}}, {{READ}}, {{key}}, bytes(6), 6))"
log = pathlib.Path({log!r})
with jailer_alone() as confinement:
    start(confinement, sys.executable, "-I", "-S", "-c", reads, log=log)
os.wait()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")
def test_keys_of_our_session_are_not_its_own(tmp_path: Path) -> None:
    """In a process of its own: nobody leaves a keyring that he has joined."""
    house = Path(client.__file__).parents[3]
    script = KEEPS_A_SECRET.format(house=str(house), numbers=(250, 248), log=str(tmp_path / "log"))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=house)
    if "OSError" in done.stderr:
        pytest.skip(f"no keyrings here: {done.stderr}")
    assert (tmp_path / "log").read_text() == "-1\n", done.stderr


def test_one_whose_group_cannot_be_joined_does_not_run(confinement: Confinement, tmp_path: Path) -> None:
    group = VmGroup(directories=(tmp_path / "gone",))
    with pytest.raises(JailError, match=rf"cgroup: .*{tmp_path / 'gone'}"):
        start(confinement, "/bin/echo", "ran", log=tmp_path / "log", group=group)
    assert (tmp_path / "log").read_text() == ""


async def test_what_it_started_outlives_it(confinement: Confinement, tmp_path: Path) -> None:
    """As VMs outlive a service that is killed."""
    process = start(confinement, "/bin/sleep", "1000", log=tmp_path / "log")
    assert confinement.jailer is not None
    confinement.jailer.close()
    assert psutil.pid_exists(process.pid)
    assert (await process.kill()).signal == signal.SIGKILL


async def test_one_that_somebody_ended_is_started_anew(confinement: Confinement, tmp_path: Path) -> None:
    await start(confinement, "/bin/true", log=tmp_path / "1").wait_exited()
    jailer = process_of(confinement)
    jailer.kill()
    jailer.wait()
    assert (await start(confinement, "/bin/true", log=tmp_path / "2").wait_exited()).status == 0


async def test_an_interrupt_leaves_no_answer_for_the_next(
    confinement: Confinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(protocol, "receive", Mock(side_effect=KeyboardInterrupt))
        start(confinement, "/bin/sleep", "2000", log=tmp_path / "1")
    process = start(confinement, "/bin/echo", "mine", log=tmp_path / "2")
    assert (await process.wait_exited()).stderr_tail == "mine"


def test_one_that_does_not_answer_is_given_up(
    confinement: Confinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_LIMIT_S", 1)
    with pytest.raises(JailError):
        start(confinement, "/nowhere/qemu", log=tmp_path / "1")
    jailer = process_of(confinement)
    jailer.suspend()
    with pytest.raises(JailError, match=r"jailer: .*Resource temporarily unavailable"):
        start(confinement, "/bin/true", log=tmp_path / "2")


ENDS_BEFORE_IT_ANSWERS = """
import json, os, signal, socket, sys
sys.path.insert(0, {house!r})
from vmm.qemu.jailer import kernel
from vmm.qemu.jailer.protocol import receive
service = socket.socket(fileno=int(sys.argv[1]))
service.recv(1000)
message, _ = receive(service)
request = json.loads(message)
arrived, arrives = os.pipe()
if kernel.clone(kernel.CLONE_PARENT | signal.SIGCHLD) == 0:
    service.close()
    {becomes}
os.close(arrives)
os.read(arrived, 1)
"""


@pytest.mark.parametrize(
    "becomes",
    [
        "os.execve(request['program'], request['argv'], {})",
        "os.execve(sys.executable, ['sh', '-c', 'import signal; signal.pause()', *request['argv']], {})",
        "os.write(arrives, b'1'); signal.pause()",
        "os._exit(126)",
    ],
    ids=["a program that runs", "a script", "a child on its way", "a dead child"],
)
def test_what_one_started_that_was_ended_before_it_said_so_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """Nobody would know of that QEMU, and the next attempt would be another one's."""
    program = tmp_path / "__main__.py"
    program.write_text(ENDS_BEFORE_IT_ANSWERS.format(house=str(Path(client.__file__).parents[3]), becomes=becomes))
    monkeypatch.setattr(client, "_PROGRAM", program)
    before = set(psutil.Process().children())
    other = subprocess.Popen(["/bin/sleep", "1000"])
    dead = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    with jailer_alone() as confinement, pytest.raises(JailError, match="jailer: "):
        start(confinement, "/bin/sleep", "2000", log=tmp_path / "log")
    assert other.poll() is None, "other children are left alone"
    assert dead.wait() == 0
    new = set(psutil.Process().children()) - before
    assert [child.pid for child in new] == [other.pid], "and no one else is there"
    other.kill()
    other.wait()


def test_the_dead_are_left_to_who_waits_for_them_though_a_trial_has_no_words() -> None:
    dead = subprocess.Popen(["/bin/false"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    end_all(name="jailer", argvs=([],))
    assert dead.wait() == 1


def test_the_limit_on_namespaces_is_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def clone(_flags: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kernel, "clone", clone)
    request = cast("Request", {"namespaces": ["user", "pid"]})
    answer, pidfd = _serve(request, [], b"")
    assert (answer["stage"], answer["errno"], pidfd) == ("namespaces", errno.ENOSPC, None)
    assert answer["text"] == "too many for user.max_user_namespaces or another of that kind (sysctl)"


def test_one_that_cannot_be_started_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PROGRAM", tmp_path / "gone.py")
    jailer = Jailer()
    with pytest.raises(
        JailError, match=f"jailer: the jailer exited at once; check that {sys.executable} can be executed"
    ):
        start(Confinement(jailer=jailer), "/bin/true", log=tmp_path / "log")
    jailer.close()


async def test_its_python_finds_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built with a library of its own and put somewhere."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = /opt/python ] && exec {sys.executable} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/python")
    monkeypatch.setattr(sys, "executable", str(python))
    with jailer_alone() as confinement:
        assert (await start(confinement, "/bin/true", log=tmp_path / "log").wait_exited()).status == 0


def test_it_ends_with_its_service(tmp_path: Path) -> None:
    """However that ends: its socket is closed."""
    with jailer_alone() as confinement:
        with pytest.raises(JailError):
            start(confinement, "/nowhere/qemu", log=tmp_path / "log")
        process = process_of(confinement)
        assert confinement.jailer is not None
        assert confinement.jailer._socket is not None
        confinement.jailer._socket.close()
        process.wait(timeout=10)


def test_what_it_starts_for_a_service_that_is_killed_meanwhile_is_ended(
    confinement: Confinement, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody has a record of it. And who is not there any more is no error."""
    with pytest.raises(JailError):
        start(confinement, "/nowhere/qemu", log=tmp_path / "1")
    assert confinement.jailer is not None
    sock = confinement.jailer._socket
    assert sock is not None
    jailer = process_of(confinement)
    before = set(psutil.Process().children())
    jailer.suspend()
    sock.send(json.dumps(request_for("/bin/sleep", "3000")).encode())
    sock.close()
    jailer.resume()
    jailer.wait(timeout=10)
    [started] = set(psutil.Process().children()) - before
    assert os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1]) == -signal.SIGKILL
    assert "Traceback" not in capfd.readouterr().err


def test_signals_from_a_terminal_do_not_end_it(confinement: Confinement, tmp_path: Path) -> None:
    with pytest.raises(JailError):
        start(confinement, "/nowhere/qemu", log=tmp_path / "1")
    jailer = process_of(confinement)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        jailer.send_signal(number)
    with pytest.raises(JailError, match="execute"):
        start(confinement, "/nowhere/qemu", log=tmp_path / "2")
    assert process_of(confinement) == jailer, "it is still the same"
