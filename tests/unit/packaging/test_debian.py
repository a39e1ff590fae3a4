"""`scripts/test-debian`, but for the Debian: options, where packages come from, what is left, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.debian import namespaces
from tests.debian.__main__ import EXIT_USAGE, REPOSITORY, main
from tests.debian.archive import apt_settings, passed_on, sources
from tests.debian.leftovers import AFTER_DPKG, Contents, look, new_files, new_mounts, processes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")

# --- options


def test_of_an_unknown_suite_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["warty"], uid=0)
    assert stopped.value.code == EXIT_USAGE
    said = capsys.readouterr().err.splitlines()[-1]
    assert all(suite in said for suite in ("bookworm", "trixie", "testing"))


def test_it_is_for_root_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trixie", "--as", "user", "--", "-m", "not qemu"], uid=1000) == EXIT_USAGE
    assert "root" in capsys.readouterr().err


# --- where packages come from

TARGETS = """\
Packages http://mirror.example/debian/ bookworm main
DEP-11 http://mirror.example/debian/ bookworm main
Packages http://mirror.example/debian/ bookworm contrib
Packages http://mirror.example/debian/ bookworm-updates main
Packages http://security.example/ bookworm-security main
Packages http://other.example/ nodistro main
Packages http://other.example/ bookworms main
"""


def test_a_suite_is_where_this_hosts_own_is() -> None:
    assert sources("trixie", targets=TARGETS, codename="bookworm") == [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://security.example/ trixie-security main",
        "deb http://mirror.example/debian/ trixie-updates main",
    ]


def test_a_host_that_is_not_debian_does_not_say() -> None:
    assert sources("trixie", targets=TARGETS, codename="noble") == []


def test_of_apts_settings_those_of_the_way_to_mirrors_are_taken_over() -> None:
    dump = """\
Acquire::AllowInsecureRepositories "0";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::http::Proxy::direct.example "DIRECT";
Acquire::Check-Valid-Until "false";
DPkg::Post-Invoke:: "true";
"""
    assert [line.split()[0] for line in apt_settings(dump)] == [
        "Acquire::http::Proxy",
        "Acquire::http::Proxy::direct.example",
        "Acquire::Check-Valid-Until",
    ]


def test_of_the_environment_the_way_to_the_indexes_is_passed_on() -> None:
    way = {"HTTPS_PROXY": "http://proxy.example", "no_proxy": "localhost", "PIP_INDEX_URL": "https://index.example"}
    assert passed_on(way | {"HOME": "/root", "VMPOOL_IMAGE_DIR": "/x"}) == way


# --- what is left


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("dev/shm", "proc/self", "root/vmpool", "run", "tmp", "usr/bin", "var/lib"):
        (tmp_path / directory).mkdir(parents=True)
    mount(tmp_path, "/")
    return tmp_path


def mount(root: Path, *mount_points: str) -> None:
    lines = [f"22 1 0:20 / {mount_point} rw - tmpfs tmpfs rw\n" for mount_point in mount_points]
    (root / "proc/self/mountinfo").write_text("".join(lines), encoding="ascii")


def contents(root: Path) -> Contents:
    return look(root, checkout=root / "root/vmpool")


def test_a_file_outside_of_the_checkout_is_left(root: Path) -> None:
    before = contents(root)
    (root / "tmp/vmpool-1/run").mkdir(parents=True)
    (root / "dev/shm/pool").touch()
    (root / "root/vmpool/build").mkdir()
    assert new_files(before, contents(root)) == ["dev/shm/pool", "tmp/vmpool-1"]


def test_what_debian_packages_bring_is_not(root: Path) -> None:
    before = contents(root)
    (root / "usr/bin/qemu-system-x86_64").touch()
    (root / "var/lib/dpkg").mkdir()
    (root / "run/mount").mkdir(parents=True)
    assert new_files(before, contents(root)) == []


def test_unless_it_is_ours_by_its_name(root: Path) -> None:
    before = contents(root)
    (root / "var/lib/vmpool/image").mkdir(parents=True)
    assert new_files(before, contents(root)) == ["var/lib/vmpool"]


def test_what_their_scripts_and_systemd_make_meanwhile_is_not(root: Path) -> None:
    before = contents(root)
    (root / "tmp/.X11-unix").mkdir()
    (root / AFTER_DPKG).parent.mkdir()
    (root / AFTER_DPKG).write_text("/tmp\n/tmp/.X11-unix\n", encoding="utf-8")
    assert new_files(before, contents(root)) == []
    (root / "tmp/.X11-unix/later").touch()
    (root / "tmp/other").touch()
    assert new_files(before, contents(root)) == ["tmp/.X11-unix/later", "tmp/other"]


def test_of_pytest_are_left_the_files_of_tests_that_failed(root: Path) -> None:
    before = contents(root)
    of_user = root / "tmp/pytest-of-root"
    of_user.mkdir()
    assert new_files(before, contents(root)) == []
    (of_user / "pytest-0").mkdir()
    assert new_files(before, contents(root)) == ["tmp/pytest-of-root"]


def test_a_mount_is_left(root: Path) -> None:
    before = contents(root)
    mount(root, "/", "/run/vmpool/template")
    assert new_mounts(before, contents(root)) == ["/run/vmpool/template"]


def test_processes_are_left_but_for_ours_and_those_that_have_ended(tmp_path: Path) -> None:
    for pid, state in ((1, "S"), (20, "S"), (21, "Z"), (22, "R")):
        (tmp_path / f"{pid}").mkdir()
        (tmp_path / f"{pid}/stat").write_text(f"{pid} (a) b) {state} 1 1", encoding="ascii")
        (tmp_path / f"{pid}/cmdline").write_bytes(b"qemu\0-name\0x\0")
    (tmp_path / "self").mkdir()
    assert processes(tmp_path, ours=frozenset({1, 22})) == ["20: qemu -name x"]


# --- the end of the namespaces


@needs_root
def test_the_exit_code_is_the_commands(tmp_path: Path) -> None:
    assert namespaces.run(["sh", "-c", "exit 3"], directory=tmp_path) == 3


@needs_root
def test_with_the_command_its_processes_and_mounts_go(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = 'mount -t tmpfs tmpfs /mnt && grep -q " /mnt tmpfs" /proc/self/mounts && { sleep 1000 >held & }'
        assert namespaces.run(["sh", "-c", script], directory=tmp_path) == 0
        assert os.read(reading, 1) == b"", "the sleep is gone: nobody has the pipe open for writing"
    finally:
        os.close(reading)
    assert " /mnt tmpfs" not in Path("/proc/self/mounts").read_text(encoding="utf-8")


@needs_root
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path, deadly: signal.Signals) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    program = f"""
import signal, sys
from pathlib import Path
from tests.debian import namespaces
from tests.debian.__main__ import end
signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGINT, end)
namespaces.run(["sh", "-c", "exec >held; sleep 1000 & echo here; wait"], directory=Path({str(tmp_path)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY) as run, held.open("rb") as pipe:
        assert pipe.readline() == b"here\n"
        run.send_signal(deadly)
        assert pipe.read() == b"", "ends when all have ended"
