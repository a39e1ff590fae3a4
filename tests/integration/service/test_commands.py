"""The command line against a real service and real VMs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.running import RunningService, at_a_terminal, vmpool_argv


def test_run_computes_inside_a_vm(service: RunningService) -> None:
    done = service.command("run", "--", "python3", "-c", "print(6*7)")
    assert (done.stdout, done.stderr, done.returncode) == (b"42\n", b"", 0)


def test_run_passes_stdin_and_separates_the_outputs(service: RunningService) -> None:
    data = os.urandom(100_000)
    done = service.command("run", "--", "sh", "-c", "cat; echo problem >&2", stdin=data)
    assert (done.stdout, done.stderr, done.returncode) == (data, b"problem\n", 0)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 7", 7), ("kill -9 $$", 128 + 9)],
    ids=["status", "signal"],
)
def test_run_passes_the_exit_code(service: RunningService, script: str, code: int) -> None:
    assert service.command("run", "--", "sh", "-c", script).returncode == code


def test_a_time_limit_ends_the_command(service: RunningService) -> None:
    assert service.command("run", "--time-limit", "0.2", "--", "sleep", "1000").returncode == 124


def test_ctrl_c_reaches_the_guests_command(service: RunningService) -> None:
    """The command says when it is ready for the signal, and what it did with it."""
    script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        at_a_terminal(vmpool_argv("run", "--", "sh", "-c", script)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path)},
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGINT)
        assert client.stdout.read() == b"interrupted\n"
    assert client.returncode == 3


def test_environment_and_working_directory(service: RunningService) -> None:
    done = service.command("run", "-e", "GREETING=hello", "-w", "/tmp", "--", "sh", "-c", 'echo "$GREETING $(pwd)"')
    assert done.stdout == b"hello /tmp\n"


def test_a_leased_vm_keeps_its_state_until_it_is_released(service: RunningService) -> None:
    lease = service.command("acquire").stdout.decode().strip()

    assert service.command("exec", lease, "--", "sh", "-c", "echo kept > /tmp/file").returncode == 0
    assert service.command("exec", lease, "--", "cat", "/tmp/file").stdout == b"kept\n"
    assert service.command("release", lease).returncode == 0

    gone = service.command("exec", lease, "--", "true")
    assert gone.returncode == 125
    assert b"has already ended (released" in gone.stderr


def test_acquire_tells_what_the_guest_is(service: RunningService) -> None:
    vm = json.loads(service.command("acquire", "--json").stdout)
    service.command("release", vm["lease_id"])

    assert vm["guest"]["hostname"] == vm["vm_id"]
    assert vm["guest"]["reseeded"] is True
    assert vm["timings"]["total_s"] >= vm["timings"]["resume_s"]


def test_status_shows_pool_and_leases(service: RunningService) -> None:
    lease = service.command("acquire").stdout.decode().strip()
    try:
        status = json.loads(service.command("status", "--json").stdout)
        text = service.command("status").stdout.decode()
    finally:
        service.command("release", lease)

    (profile,) = status["profiles"]
    assert profile["name"] == "default"
    assert profile["producer"]["accelerator"] == "tcg"
    assert [held["lease_id"] for held in status["leases"]] == [lease]
    assert lease in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--profile", "huge", "--", "true"], 125, "profile: there is no profile 'huge'; configured: default"),
        (["release", "lease-none"], 1, "lease: there is none with the id or name 'lease-none'"),
        (["run", "--", "no-such-command"], 125, "start.argv[0]: cannot be used"),
        (
            ["run", "-e", "NOVALUE", "--", "true"],
            2,
            "'NOVALUE' is not in this environment; set it",
        ),
        (["run"], 2, "Missing argument"),
        (["exec", "lease-none", "--"], 2, "Missing argument"),
        (["acquire", "--wait", "0"], 2, "--wait"),
    ],
)
def test_bad_input_is_named(service: RunningService, arguments: list[str], code: int, message: str) -> None:
    done = service.command(*arguments)
    assert message in done.stderr.decode()
    assert done.returncode == code


def run_shell(service: RunningService, script: str, *, file: Path) -> subprocess.CompletedProcess[bytes]:
    """A shell that redirects; `vmpool` is the command under test, and `$F` may be written to."""
    command = shlex.join(vmpool_argv())
    return subprocess.run(
        ["sh", "-c", script.replace("vmpool", command)],
        check=False,
        capture_output=True,
        timeout=120,
        env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path), "F": str(file)},
    )


@pytest.mark.parametrize(
    ("script", "code", "stdout", "stderr"),
    [
        ("vmpool run -- cat <&-", 0, b"", b""),
        ("vmpool run --stdin-first -- cat <&-", 0, b"", b""),
        ("printf one | vmpool run --stdin-first -- cat", 0, b"one", b""),
        ("head -c 262145 /dev/zero | vmpool run --stdin-first -- cat", 125, b"", b"leave --stdin-first out"),
        ("head -c 300000 /dev/zero >$F; (head -c 1 >/dev/null; vmpool run -- wc -c) <$F", 0, b"299999\n", b""),
        ("printf 1234 >$F; (dd bs=1 count=1 2>&1 >&-; vmpool run -- cat) <$F | tail -c 3", 0, b"234", b""),
        ("vmpool run -- echo hello 2>&-", 0, b"hello\n", b""),
        ("vmpool run -- echo hello >/dev/full", 125, b"", b"No space left"),
        ("vmpool run -- echo hello >&-", 125, b"", b"Bad file descriptor"),
        ("vmpool run -- yes | head -n 1", 0, b"y\n", b""),
        ("vmpool status >/dev/full", 1, b"", b"No space left"),
        (r"vmpool run -- echo $(printf '\377')", 2, b"", b"is not UTF-8"),
        ("vmpool acquire --wait nan", 2, b"", b"is not a time"),
        ("vmpool run --time-limit inf -- true", 2, b"", b"--time-limit"),
    ],
)
def test_odd_surroundings(
    service: RunningService, tmp_path: Path, script: str, code: int, stdout: bytes, stderr: bytes
) -> None:
    done = run_shell(service, script, file=tmp_path / "file")
    assert b"Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (code, stdout), done.stderr
    assert stderr in done.stderr


def test_a_run_that_is_killed_takes_its_lease_along(service: RunningService) -> None:
    with subprocess.Popen(
        vmpool_argv("run", "--", "sh", "-c", "echo ready; sleep 1000"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"VMPOOL_SOCKET": str(service.socket_path)},
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.kill()
    while json.loads(service.command("status", "--json").stdout)["leases"]:
        pass
