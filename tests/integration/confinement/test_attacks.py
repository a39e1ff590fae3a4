"""A program in the place of a QEMU that its guest has taken over: which layer keeps it from what."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from pool.settings.config import load_settings
from tests.integration.confinement import attacks
from tests.unit.confinement.jailed import SPEC
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.layers import NAMESPACES, Layers
from vmm.qemu.confinement.making import jailed, user_for
from vmm.qemu.confinement.user import QemuUser
from vmm.qemu.jailer.kernel import landlock_version
from vmm.qemu.process import QemuProcess
from vmm.words.confinement import Layer, UidRange

PYTHON = Path("/usr/bin/python3")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start victims as others"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls"),
    pytest.mark.skipif(not PYTHON.exists(), reason="a Python in /usr"),
    pytest.mark.usefixtures("leak_check"),
]

UID = "uid"
"""A layer, too: a uid of its own."""

SHARED = QemuUser(name="all VMs", uid=UidRange().last + 1, gid=UidRange().last + 1)
"""Whom all are without that."""

NEEDS_A_CAPABILITY = {"mount", "bpf", "perf", "a vsock socket"}
"""On this host, or a device that it has not: they are refused without any layer."""

SCOPED_SINCE = 6
"""The version of Landlock that keeps signals in."""

SERVICE = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(100)
print("listens", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def whole() -> Iterator[Confinement]:
    settings = load_settings(None)
    with jailed(settings.service.confinement_wish, user=user_for(settings.service.confinement_wish)) as confinement:
        missing = confinement.layers.missing
        if missing.keys() - {Layer.USER_NAMESPACE}:  # which root needs for nothing
            pytest.skip(f"not all layers here: {missing}")
        yield confinement


@pytest.fixture
def home(vm_home: Path) -> Iterator[Path]:
    """Where a service of an ordinary user has its socket, and the directories of its VMs."""
    vm_home.chmod(0o711)
    home = vm_home / "home"
    home.mkdir(mode=0o700)
    yield home
    shutil.rmtree(home)


@contextmanager
def targets(confinement: Confinement, home: Path) -> Iterator[attacks.Targets]:
    """Another VM, confined in the same way, and a service, which has one uid with it unless each VM has its own."""
    directory = home / "victim"
    directory.mkdir(mode=0o700)
    (directory / "memory").write_bytes(b"secret")
    assert confinement.user is not None
    with contextlib.ExitStack() as cleanup:
        internet = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        qmp = cleanup.enter_context(socket.socket(socket.AF_UNIX))
        qmp.bind(str(directory / "qmp.sock"))
        qmp.listen(100)
        for path in (home, directory, *directory.iterdir()):
            os.chown(path, SHARED.uid, SHARED.gid)
        command = [str(PYTHON), "-I", "-S", "-c", SERVICE, str(home / "vmpool.sock")]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, user=SHARED.uid, group=SHARED.gid, umask=0o177)
        cleanup.enter_context(service)
        cleanup.callback(service.kill)
        assert service.stdout is not None
        assert service.stdout.readline() == b"listens\n"
        victim = start(confinement, "/usr/bin/sleep", "1000", log=home / "victim.log")
        cleanup.callback(victim.close)
        cleanup.callback(os.waitpid, victim.pid, 0)
        cleanup.callback(os.kill, victim.pid, signal.SIGKILL)
        heap = next(line for line in Path(f"/proc/{victim.pid}/maps").read_text().splitlines() if " rw-p " in line)
        yield attacks.Targets(
            victim=victim.pid,
            victim_address=int(heap.partition("-")[0], 16),
            directory=str(directory),
            service=service.pid,
            service_socket=str(home / "vmpool.sock"),
            port=internet.getsockname()[1],
        )
    shutil.rmtree(directory)
    for name in ("vmpool.sock", "victim.log"):
        (home / name).unlink()


def start(confinement: Confinement, *argv: str, log: Path) -> QemuProcess:
    spec = attrs.evolve(SPEC, qemu=Path(argv[0]))
    return confinement.spawn(list(argv), spec=spec, group=VmGroup(), log=log, readable=())


def tried(confinement: Confinement, home: Path) -> dict[str, str]:
    """What became of each attack."""
    code, log = Path(attacks.__file__).read_text(encoding="utf-8"), home / "attacker.log"
    with targets(confinement, home) as at:
        attacker = start(confinement, str(PYTHON), "-I", "-S", "-c", code, json.dumps(vars(at)), log=log)
        _, status = os.waitpid(attacker.pid, 0)
        attacker.close()
    said = log.read_text()
    log.unlink()
    for name in ("/tmp/attack", "/dev/shm/attack"):
        Path(name).unlink(missing_ok=True)
    assert status == 0, said
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


def with_layers(whole: Confinement, names: set[str]) -> Confinement:
    layers = Layers(applied=frozenset(layer for layer in whole.layers.applied if layer.value in names))
    if UID in names:
        return attrs.evolve(whole, layers=layers)
    return attrs.evolve(whole, layers=layers, user=SHARED, uids=None)


ALL = {UID, *(layer.value for layer in Layer)}


def succeeded(verdicts: dict[str, str]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict == "succeeded"}


def test_without_any_layer_they_succeed(whole: Confinement, home: Path) -> None:
    """Or the tests below would show nothing. What this kernel has not, it has not."""
    verdicts = tried(with_layers(whole, set()), home)
    failed = {name: verdict for name, verdict in verdicts.items() if verdict != "succeeded"}
    at_least = NEEDS_A_CAPABILITY | ({"unshare"} if Layer.USER_NAMESPACE in whole.layers.missing else set())
    assert failed.keys() <= at_least, failed


def test_with_all_layers_each_is_refused(whole: Confinement, home: Path) -> None:
    verdicts = tried(whole, home)
    assert succeeded(verdicts) == set()


@pytest.mark.parametrize("missing", sorted(ALL - {Layer.SECCOMP.value}))
def test_without_one_of_them_each_is_still_refused(whole: Confinement, home: Path, missing: str) -> None:
    names = ALL - {missing}
    if missing == Layer.USER_NAMESPACE.value:
        assert os.geteuid() == 0, "root needs none for the others"
    assert succeeded(tried(with_layers(whole, names), home)) == set()


def test_without_our_filter_what_is_left_reaches_nobody(whole: Confinement, home: Path) -> None:
    verdicts = tried(with_layers(whole, ALL - {Layer.SECCOMP.value}), home)
    assert succeeded(verdicts) <= attacks.OWN_AFFAIR


def test_the_table_in_the_documentation_says_what_each_layer_refuses_alone(whole: Confinement, home: Path) -> None:
    if whole.layers.missing or landlock_version() < SCOPED_SINCE:
        pytest.skip("the table is of a host that has all layers, and of a Landlock that scopes signals")
    namespaces = {layer.value for layer in NAMESPACES}
    columns = {
        "uid": {UID},
        "namespaces": namespaces - {Layer.MOUNT_NAMESPACE.value},
        "root": {Layer.USER_NAMESPACE.value, Layer.MOUNT_NAMESPACE.value},
        "Landlock": {Layer.LANDLOCK.value},
        "filter": {Layer.SECCOMP.value},
    }
    refused: dict[str, dict[str, bool]] = {}
    for column, names in columns.items():
        for name, verdict in tried(with_layers(whole, names), home).items():
            refused.setdefault(name, {})[column] = verdict != "succeeded"
    for name in refused.keys() & NEEDS_A_CAPABILITY:  # others would not let it pass either, without any layer
        refused[name] = {column: column == "filter" for column in columns}
    assert documented(columns) == refused


def documented(columns: Collection[str]) -> dict[str, dict[str, bool]]:
    """The table, by attack and column."""
    text = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    section = text.partition("### What each layer keeps from a QEMU")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head, _, *body = rows
    assert head[1:] == list(columns)
    return {row[0]: {column: cell == "x" for column, cell in zip(columns, row[1:], strict=True)} for row in body}
