"""The steps from the fork to the program: setting up confinement and dropping privileges."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from vmm.qemu.jailer import kernel, landlock, root
from vmm.qemu.jailer.protocol import Identity, Request

_FAILED = 126
"""A shell's exit status for a program that it cannot execute."""

_MAX_DESCRIPTORS = 2048
"""A QEMU has some thirty; if Kata plugs devices in, a few more for each."""

_RESET = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """The child for one request; `become` does everything."""

    def __init__(self, request: Request, *, report: int, mapped: int, program: bytes) -> None:
        """`report` receives failures; a byte arrives on `mapped` when the user namespace has its uid map."""
        self._request = request
        self._report = report
        self._mapped = mapped
        self._program = program

    def become(self, descriptors: list[int]) -> NoReturn:
        """Executes the program, or reports what failed and exits. Closes every descriptor that is not the program's."""
        stage = "descriptors"
        try:
            self._renumber(descriptors)
            for name, step in self._steps():
                stage = name
                step()
        except OSError as error:
            self._say(stage, errno=error.errno or 0, text=str(error))
        except BaseException as error:  # noqa: BLE001 - a fork must not go on as a second jailer
            self._say(stage, errno=0, text=f"{type(error).__name__}: {error}")
        else:
            os._exit(0)
        os._exit(_FAILED)

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """The order matters: each step needs something that a later one takes away."""
        request = self._request
        in_user_namespace = "user" in request["namespaces"]
        return [
            ("session", _begin_session),
            ("cgroup", self._enter_cgroups),
            ("limits", self._limit),
            ("user namespace", self._wait_mapped),
            # Uid 0 is not mapped in our user namespaces, so switching users drops no capability.
            ("user", self._become if in_user_namespace else _nothing),
            ("host name", _hide_host_name if "uts" in request["namespaces"] else _nothing),
            ("mounts", self._enter_root if "mount" in request["namespaces"] else _nothing),
            ("privileges", kernel.bound_privileges),
            ("user", _nothing if in_user_namespace else self._become),
            ("working directory", _leave_directory),
            ("privileges", kernel.give_up_privileges),
            ("landlock", self._restrict if request["landlock"] else _nothing),
            ("seccomp", self._load_filter if request["filter"] else _nothing),
            ("execute", self._execute if request["program"] else _nothing),
        ]

    def _renumber(self, descriptors: list[int]) -> None:
        """Gives each descriptor its number in the program. Ours are moved out of the way, and closed there."""
        numbers = self._request["descriptors"]
        self._report, self._mapped, *copies = (
            _copy_beside(each, numbers) for each in (self._report, self._mapped, *descriptors)
        )
        for descriptor, number in zip(copies, numbers, strict=True):
            os.dup2(descriptor, number)

    def _enter_cgroups(self) -> None:
        for entrance in self._request["entrances"]:
            descriptor = os.open(entrance, os.O_WRONLY | os.O_CLOEXEC)
            os.write(descriptor, b"0\n")
            os.close(descriptor)

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # The service has raised its own limit for thousands of VMs. Open descriptors are not affected.
        most = min(_MAX_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        largest = self._request["max_file_bytes"]
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    def _wait_mapped(self) -> None:
        if not os.read(self._mapped, 1):
            raise InterruptedError("the jailer has ended")

    def _become(self) -> None:
        identity: Identity | None = self._request["identity"]
        if identity is not None:
            os.setgroups(identity["groups"])
            os.setresgid(identity["gid"], identity["gid"], identity["gid"])
            os.setresuid(identity["uid"], identity["uid"], identity["uid"])

    def _enter_root(self) -> None:
        root.enter(self._request["files"])

    def _restrict(self) -> None:
        request = self._request
        landlock.restrict(request["files"], readable=request["readable"], writable=request["writable"])

    def _load_filter(self) -> None:
        kernel.load_filter(self._program)

    def _execute(self) -> None:
        os.execve(self._request["program"], self._request["argv"], self._request["environment"])  # noqa: S606

    def _say(self, stage: str, *, errno: int, text: str) -> None:
        os.write(self._report, json.dumps({"stage": stage, "errno": errno, "text": text}).encode())


def _copy_beside(descriptor: int, numbers: list[int]) -> int:
    """Duplicates to a number outside `numbers`, as low as possible: the limit may be just above them."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
    while copy in numbers:
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, copy + 1)
    return copy


def _nothing() -> None: ...


def _begin_session() -> None:
    os.setsid()
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    # If ignored, writing too much is an error: QEMU then drops guest output and goes on.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _hide_host_name() -> None:
    socket.sethostname("vm")


def _leave_directory() -> None:
    os.chdir("/")
