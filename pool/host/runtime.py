"""The runtime directory, and in it the private, locked directory of the VMs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import attrs

from pool.host.endpoint import EndpointError, ServiceRunningError, hold, take_lock
from vmm.devices.device import MAX_SOCKET_NAME
from vmm.lock import HeldLock
from vmm.places import check_can_make, exposure
from vmm.sockets import MAX_SOCKET_PATH_BYTES


@attrs.define(eq=False, kw_only=True)
class VmsDirectory:
    """The parent of the VMs' directories; it contains nothing else."""

    path: Path
    _lock: HeldLock
    _own: int
    """The directory itself, open and locked, so that removing the lock file lets no other service in."""

    def look_after(self) -> None:
        """Restores the directory and the lock if they were removed. Raises ServiceRunningError if another service has
        started in between, EndpointError if they cannot be restored. Blocks for a few stat calls.
        """
        try:
            _make_private(self.path)
            hold(self._lock)
            if not _is_same(self._own, self.path):
                again = _lock_directory(self.path)
                os.close(self._own)
                self._own = again
        except OSError as error:
            raise _runtime_not_writable(self.path.parent, error) from error

    def give_back(self) -> None:
        """Removes the directory if it is empty; otherwise files of a VM are left, which was logged."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._own)


@contextlib.contextmanager
def open_vms_directory(runtime: Path) -> Iterator[VmsDirectory]:
    """Makes and locks the parent of the VMs' directories, `vms` in a runtime directory. Removed at the end, when empty.

    Raises EndpointError, also if other users could write to it: the records in it are trusted.
    """
    directory = vms_directory(runtime)
    check_vms_directory(runtime)
    with contextlib.ExitStack() as cleanup:
        try:
            _make_private(directory)
            # Two services with different sockets may share this directory; one would end the other's VMs.
            held = take_lock(vms_lock_path(runtime), cleanup)
            vms = VmsDirectory(path=directory, lock=held, own=_lock_directory(directory))
        except OSError as error:
            raise _runtime_not_writable(runtime, error) from error
        cleanup.callback(vms.give_back)
        yield vms


def _make_private(directory: Path) -> None:
    """Raises OSError, also if the runtime directory is removed meanwhile: made as a parent it would be too open."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    _check_private(directory)


def _lock_directory(directory: Path) -> int:
    """Opens the directory; it is locked while the descriptor is open. Raises ServiceRunningError, OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ServiceRunningError(lock=directory, pid="") from None
    return descriptor


def _is_same(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), path.stat())


def vms_directory(runtime: Path) -> Path:
    return runtime / "vms"


def vms_lock_path(runtime: Path) -> Path:
    """The lock file of the service whose VMs are there."""
    return runtime / "vms.lock"


def check_vms_directory(runtime: Path) -> None:
    """Raises EndpointError if a service could not have its VMs there. Ignores a running service; changes nothing."""
    directory = vms_directory(runtime)
    longest = directory / "vm-000000000000" / ("s" * MAX_SOCKET_NAME)
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"runtime directory {runtime} is too long: the paths of the VMs' sockets would be over "
            f"{MAX_SOCKET_PATH_BYTES} bytes; choose a shorter one with --socket or service.runtime_directory"
        )
    try:
        _check_private(directory)
        check_can_make(runtime)
    except OSError as error:
        raise _runtime_not_writable(runtime, error) from error


def _runtime_not_writable(runtime: Path, error: OSError) -> EndpointError:
    return EndpointError(
        f"runtime directory {runtime}: {error.strerror}; choose a writable one with --socket or "
        "service.runtime_directory"
    )


def _check_private(directory: Path) -> None:
    """Raises EndpointError if other users could write to `directory` or replace it."""
    if exposed := exposure(directory):
        otherwise = "choose a directory of your own with --socket or service.runtime_directory"
        raise EndpointError(exposed.told(otherwise=otherwise))
