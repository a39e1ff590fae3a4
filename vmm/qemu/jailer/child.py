"""From the fork to the program: what is given up on the way."""

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
"""What a shell ends with if it cannot execute something."""

_MAX_DESCRIPTORS = 2048
"""A QEMU has some thirty; one that Kata plugs devices into, a few for each."""

_RESET = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """Of one request. `become` is all of it."""

    def __init__(self, request: Request, *, report: int, mapped: int, program: bytes) -> None:
        """`report` takes what failed; of `mapped` a byte comes when the user namespace has its users."""
        self._request = request
        self._report = report
        self._mapped = mapped
        self._program = program

    def become(self, descriptors: list[int]) -> NoReturn:
        """Executes the program, or says what failed, and ends. Whatever is open and not the program's is closed."""
        stage = "descriptors"
        try:
            self._renumber(descriptors)
            for name, step in self._steps():
                stage = name
                step()
        except OSError as error:
            self._say(stage, errno=error.errno or 0, text=str(error))
        except BaseException as error:  # noqa: BLE001 - a fork of the jailer must not go on as a second one
            self._say(stage, errno=0, text=f"{type(error).__name__}: {error}")
        else:
            os._exit(0)
        os._exit(_FAILED)

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        """In this order: each needs what a later one takes away."""
        request = self._request
        in_user_namespace = "user" in request["namespaces"]
        return [
            ("session", _begin_session),
            ("cgroup", self._enter_cgroups),
            ("limits", self._limit),
            ("user namespace", self._wait_mapped),
            # Zero is nobody in a user namespace of ours: becoming somebody else takes no capability away.
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
        """Gives each the number that it has in the program. Ours get out of the way of these, and are closed there."""
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
        # The service has raised its own to what thousands of VMs need. What is open already stays so.
        most = min(_MAX_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        largest = self._request["max_file_bytes"]
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    def _wait_mapped(self) -> None:
        if not os.read(self._mapped, 1):
            raise InterruptedError("the jailer was ended")

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
        os.execve(self._request["program"], self._request["argv"], self._request["environment"])  # noqa: S606 - the purpose

    def _say(self, stage: str, *, errno: int, text: str) -> None:
        os.write(self._report, json.dumps({"stage": stage, "errno": errno, "text": text}).encode())


def _copy_beside(descriptor: int, numbers: list[int]) -> int:
    """With none of these numbers, and no higher than it must be: the limit may be just above them."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
    while copy in numbers:
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, copy + 1)
    return copy


def _nothing() -> None: ...


def _begin_session() -> None:
    os.setsid()
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    # Ignored, it leaves an error for who writes too much: QEMU then drops what the guest says, and goes on.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _hide_host_name() -> None:
    socket.sethostname("vm")


def _leave_directory() -> None:
    os.chdir("/")
