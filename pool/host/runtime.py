"""The runtime directory: where the VMs have theirs, and who may have his there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import attrs

from pool.host.endpoint import EndpointError, ServiceRunningError, hold, take_lock
from vmm.lock import HeldLock
from vmm.places import check_can_make, exposure
from vmm.sockets import MAX_SOCKET_PATH_BYTES


@attrs.define(eq=False, kw_only=True)
class VmsDirectory:
    """Where each VM has its directory, and nobody else has anything."""

    path: Path
    _lock: HeldLock
    _own: int
    """The directory itself, open and locked: whoever removes the lock file lets nobody in."""

    def look_after(self) -> None:
        """Puts back what somebody has removed: directory, lock. Raises ServiceRunningError if another service has come
        in between, EndpointError if it cannot be done. Blocks for a few stat calls.
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
        """Removes it if it is empty; else something of a VM is left, and was told of."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._own)


@contextlib.contextmanager
def open_vms_directory(runtime: Path) -> Iterator[VmsDirectory]:
    """Where each VM has its directory, `vms` in a runtime directory, and nobody else's. Removed at the end, when empty.

    Raises EndpointError, also if others could put things there: records in it are believed.
    """
    directory = vms_directory(runtime)
    check_vms_directory(runtime)
    with contextlib.ExitStack() as cleanup:
        try:
            _make_private(directory)
            # Two services may have different sockets and yet share this directory; one would end the other's VMs.
            held = take_lock(vms_lock_path(runtime), cleanup)
            vms = VmsDirectory(path=directory, lock=held, own=_lock_directory(directory))
        except OSError as error:
            raise _runtime_not_writable(runtime, error) from error
        cleanup.callback(vms.give_back)
        yield vms


def _make_private(directory: Path) -> None:
    """Raises OSError, also if somebody removes the runtime directory meanwhile: made as a parent it would be open to
    others.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    _check_private(directory)


def _lock_directory(directory: Path) -> int:
    """Open, and locked as long as it is. Raises ServiceRunningError, OSError."""
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
    """The lock of the service whose VMs are there."""
    return runtime / "vms.lock"


def check_vms_directory(runtime: Path) -> None:
    """Raises EndpointError for what keeps a service from having its VMs there; one that runs aside. Changes nothing."""
    directory = vms_directory(runtime)
    longest = directory / "vm-000000000000" / "agent.sock"
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"runtime directory {runtime} is too long: the VMs' sockets would be over {MAX_SOCKET_PATH_BYTES} bytes; "
            "choose a shorter one with --socket or service.runtime_directory"
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
    """Raises EndpointError if anybody else could have something in `directory`, or put another one in its place."""
    if exposed := exposure(directory):
        otherwise = "choose a directory of your own with --socket or service.runtime_directory"
        raise EndpointError(exposed.told(otherwise=otherwise))
