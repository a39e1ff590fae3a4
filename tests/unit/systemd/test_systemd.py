"""The unit: what systemd thinks of it, and that it names the places and codes that the code has."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pool.cli.options import EXIT_USAGE
from pool.cli.serve import serve
from pool.host.endpoint import open_endpoint
from pool.host.paths import cache_directory, default_socket
from pool.systemd.unit import packaged_unit, packaged_user, unit_for
from vmm.qemu.confinement.uids import LOCKS

MAX_EXPOSURE = 33
"""Tenths; systemd calls up to 4.0 "OK". What is left is being root with five capabilities, /dev/kvm, TCG's JIT, and the
namespaces and mounts that each QEMU is shut in with.
"""


UNITS_LOADED = Path("/run/systemd/systemd-units-load")
"""`systemd-analyze` of Debian testing touches it as the manager does, if it may."""


def settings(key: str) -> list[str]:
    lines = packaged_unit().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def setting(key: str) -> str:
    (value,) = settings(key)
    return value


def systemd(command: Sequence[str | Path]) -> str:
    """Its output. The tool may be missing, but not fail; warnings count as failures."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    was_there = UNITS_LOADED.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if os.geteuid() == 0 and not was_there:
        UNITS_LOADED.unlink(missing_ok=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.fixture(params=["/usr", "/home/me"], ids=["outside of homes", "in a home"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With a command that is there: systemd asks."""
    file = tmp_path / "vmpool.service"
    file.write_text(unit_for(Path("/bin/true"), places=[Path(request.param)]), encoding="utf-8")
    return file


def test_systemd_understands_every_line(unit: Path) -> None:
    systemd(["systemd-analyze", "verify", "--man=no", unit])


def test_the_exposure_stays_low(unit: Path) -> None:
    systemd(["systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", unit])


def test_the_user_can_be_made(tmp_path: Path) -> None:
    tool = shutil.which("systemd-sysusers")
    if tool is None:
        pytest.skip("systemd-sysusers is not installed")
    file = tmp_path / "vmpool.conf"
    file.write_text(packaged_user(), encoding="utf-8")
    done = subprocess.run([tool, "--dry-run", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_is_one_of_ours() -> None:
    program, command, *arguments = shlex.split(setting("ExecStart"))
    assert (Path(program).name, command) == ("vmpool", "serve")
    assert serve.make_context("serve", arguments).params["config"] == Path("/etc/vmpool/vmpool.toml")


def test_directories_are_those_that_root_uses() -> None:
    ours, locks = setting("RuntimeDirectory").split()
    assert Path("/run") / ours == default_socket(environment={}, uid=0).parent
    assert Path("/run") / locks == LOCKS
    assert Path("/var/cache") / setting("CacheDirectory") == cache_directory(environment={}, uid=0)


def test_the_runtime_directory_is_one_that_the_service_takes(vm_home: Path) -> None:
    directory = vm_home / "vmpool"
    directory.mkdir()
    directory.chmod(int(setting("RuntimeDirectoryMode"), 8))
    with open_endpoint(directory / "vmpool.sock"):
        pass
    assert directory.exists(), "it is systemd's to remove"


def test_a_wrong_configuration_is_not_tried_again() -> None:
    assert setting("Restart") == "on-failure"
    assert setting("RestartPreventExitStatus") == str(EXIT_USAGE)


@pytest.mark.parametrize("group", ["/system.slice/vmpool.service", "/vmpool.slice/vmpool@a b.service"])
@pytest.mark.parametrize("control", ["", "/.control"], ids=["older systemd", "newer systemd"])
def test_after_the_end_the_groups_of_surviving_vms_do_not_bar_the_start(
    tmp_path: Path, group: str, control: str
) -> None:
    (tmp_path / "self").write_text(f"1:name=systemd:/x\n0::{group}{control}\n", encoding="ascii")
    tree = tmp_path / "tree"
    (tree / group[1:]).mkdir(parents=True)
    command = setting("ExecStopPost").removeprefix("-").replace("$$", "$").replace("%%", "%")
    command = command.replace("/proc/self/cgroup", str(tmp_path / "self")).replace("/sys/fs/cgroup", str(tree))
    subprocess.run(shlex.split(command), check=True, timeout=30)
    assert (tree / group[1:] / "cgroup.subtree_control").read_text(encoding="ascii") == "-cpu -memory -pids\n"
