"""The endpoint: one live service per socket, remains of a dead one swept aside, nothing left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.host.endpoint import EndpointError, ServiceRunningError, open_endpoint
from vmm.sockets import MAX_SOCKET_PATH_BYTES


@pytest.fixture
def path(vm_home: Path, leak_check: None) -> Path:
    return vm_home / "run" / "vmpool.sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_is_private_and_takes_connections(path: Path) -> None:
    with open_endpoint(path), socket.socket(socket.AF_UNIX) as client:
        assert mode_of(path.parent) == 0o700
        assert mode_of(path) == 0o600
        client.connect(os.fspath(path))


def test_nothing_is_left(path: Path) -> None:
    with open_endpoint(path):
        pass
    assert not path.parent.exists()


def test_a_directory_that_was_there_stays(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with open_endpoint(path):
        pass
    assert list(path.parent.iterdir()) == []
    path.parent.rmdir()


def test_a_second_service_is_refused_and_does_no_harm(path: Path) -> None:
    with open_endpoint(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ServiceRunningError, match=f"already running .pid {os.getpid()}"), open_endpoint(path):
            pass
        client.connect(os.fspath(path))


@contextlib.contextmanager
def killed_service(path: Path) -> Iterator[None]:
    """The files of a service that ended with SIGKILL."""
    script = (
        "import os, pathlib, signal, sys\n"
        "from pool.host.endpoint import open_endpoint\n"
        "with open_endpoint(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, os.fspath(path)], check=False)
    assert done.returncode == -9
    assert path.is_socket()
    yield


def test_the_socket_of_a_killed_service_is_replaced(path: Path) -> None:
    with killed_service(path), open_endpoint(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
    assert list(path.parent.iterdir()) == []
    path.parent.rmdir()


def test_a_path_the_kernel_cannot_take_is_refused_with_the_limit(vm_home: Path) -> None:
    name = "x" * (MAX_SOCKET_PATH_BYTES - len(os.fsencode(vm_home)))
    with pytest.raises(EndpointError, match="108 bytes, the kernel's maximum is 107"), open_endpoint(vm_home / name):
        pass


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_open_to_others_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(EndpointError, match=rf"open to others \(mode {mode:o}"), open_endpoint(path):
        pass
    path.parent.rmdir()


def test_an_unwritable_place_is_named(path: Path) -> None:
    """/proc takes no directories, not even from root."""
    with pytest.raises(EndpointError, match="--socket"), open_endpoint(Path("/proc/vmpool/vmpool.sock")):
        pass


def test_a_file_where_the_directory_should_be_is_named(path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(EndpointError, match="is not a directory"), open_endpoint(path):
        pass
    path.parent.unlink()


def test_a_lock_removed_between_open_and_flock_is_taken_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last holder unlinks its lock file: a lock on the unlinked file would exclude nobody."""
    real = fcntl.flock
    removed: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        if not removed:
            lock = path.with_name("vmpool.sock.lock")
            lock.unlink()
            removed.append(lock)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_endpoint(path):
        assert removed
        with pytest.raises(ServiceRunningError), open_endpoint(path):
            pass


GROUP = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group that it is not in")
def test_a_group_reaches_the_socket_and_nothing_else(path: Path) -> None:
    with open_endpoint(path, group=GROUP):
        assert (mode_of(path.parent), path.parent.stat().st_gid) == (0o710, GROUP)
        assert (mode_of(path), path.stat().st_gid) == (0o660, GROUP)
        assert mode_of(path.with_name("vmpool.sock.lock")) == 0o600
    assert not path.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group that it is not in")
def test_the_directory_of_a_killed_service_serves_its_group_again(path: Path) -> None:
    path.parent.mkdir()
    os.chown(path.parent, -1, GROUP)
    path.parent.chmod(0o710)
    with open_endpoint(path, group=GROUP):
        pass
    path.parent.rmdir()


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o730])
def test_a_directory_that_the_group_cannot_pass_or_others_can_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    group = path.parent.stat().st_gid
    remedy = rf"mode {mode:o} and gid {group}.*`chgrp {group} {path.parent} && chmod 0710"
    with pytest.raises(EndpointError, match=remedy), open_endpoint(path, group=group):
        pass
    path.parent.rmdir()


def test_a_directory_of_another_group_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o710)
    with pytest.raises(EndpointError, match="socket_group cannot enter it"), open_endpoint(path, group=GROUP):
        pass
    path.parent.rmdir()


# -- what somebody removes while it runs -------------------------------------------------------------------------------


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def test_as_long_as_all_is_there_nothing_is_done(path: Path) -> None:
    with open_endpoint(path) as endpoint:
        listener = endpoint.listener
        assert not endpoint.look_after()
        assert endpoint.listener is listener


def remove_socket(path: Path) -> None:
    path.unlink()


def remove_lock(path: Path) -> None:
    path.with_name("vmpool.sock.lock").unlink()


def remove_both(path: Path) -> None:
    remove_socket(path)
    remove_lock(path)


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_socket(path: Path) -> None:
    path.unlink()
    path.write_text("")


@pytest.mark.parametrize("harm", [remove_socket, remove_lock, remove_both, remove_directory, replace_socket])
def test_what_somebody_removed_is_put_back(path: Path, harm: Callable[[Path], None]) -> None:
    """A cleaner of /tmp, say: the service would be out of reach for ever, and another one could begin."""
    with open_endpoint(path) as endpoint:
        harm(path)
        assert endpoint.look_after() is (harm is not remove_lock)
        assert answers(path)
        assert (mode_of(path.parent), mode_of(path)) == (0o700, 0o600)
        with pytest.raises(ServiceRunningError, match=f"pid {os.getpid()}"), open_endpoint(path):
            pass
        assert not endpoint.look_after()
    assert not path.parent.exists()


def test_a_service_whose_lock_was_removed_keeps_its_socket_from_another(path: Path) -> None:
    """Which would have had it otherwise, until the first one looked."""
    with open_endpoint(path) as endpoint:
        remove_lock(path)
        with pytest.raises(ServiceRunningError, match="already running"), open_endpoint(path):
            pass
        assert answers(path)
        endpoint.look_after()


def test_one_in_whose_place_another_came_says_so_and_leaves_that_alone(path: Path) -> None:
    with open_endpoint(path) as first:
        remove_both(path)
        with open_endpoint(path):
            with pytest.raises(ServiceRunningError, match="already running"):
                first.look_after()
            first._cleanup.close()
            assert answers(path)
    path.parent.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group that it is not in")
def test_what_is_put_back_is_for_the_same_group(path: Path) -> None:
    with open_endpoint(path, group=GROUP) as endpoint:
        remove_directory(path)
        endpoint.look_after()
        assert (mode_of(path.parent), path.parent.stat().st_gid) == (0o710, GROUP)
        assert (mode_of(path), path.stat().st_gid) == (0o660, GROUP)
