"""The jailer: reads requests from its socket, answers each, and ends with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys

_HOUSE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
if __name__ == "__main__":
    # Executed as a file, in isolation: nothing that the environment or a user's directory says is imported.
    sys.path.insert(0, _HOUSE)

from vmm.qemu.jailer import kernel  # noqa: E402 - see above
from vmm.qemu.jailer.child import Child  # noqa: E402
from vmm.qemu.jailer.protocol import MAX_MESSAGE, NAMESPACES, Answer, Request, receive  # noqa: E402

_TOO_MANY = "too many for user.max_user_namespaces or another of that kind (sysctl)"
"""What the kernel means by "no space left on device"."""


def main(descriptor: int) -> None:
    """Until the other end is closed, however its owner ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the kernel has none, or a container's filter forbids them
        kernel.leave_keyring()
    os.set_inheritable(descriptor, False)
    # A service that was killed is no error.
    with socket.socket(fileno=descriptor) as service, contextlib.suppress(ConnectionError):
        program = service.recv(MAX_MESSAGE)
        while _answer_one(service, program):
            pass


def _answer_one(service: socket.socket, program: bytes) -> bool:
    """False if there is nobody to answer any more. Raises ConnectionError, as there is nobody either."""
    message, descriptors = receive(service)
    if not message:
        return False
    try:
        answer, pidfd = _serve(json.loads(message), descriptors, program)
    finally:
        for each in descriptors:
            os.close(each)
    try:
        socket.send_fds(service, [json.dumps(answer).encode()], [] if pidfd is None else [pidfd])
    except ConnectionError:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # nobody will ever hear of it
        raise
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def _serve(request: Request, descriptors: list[int], program: bytes) -> tuple[Answer, int | None]:
    """The answer, and a pidfd, which the caller closes."""
    report, childs_report = os.pipe2(os.O_CLOEXEC)
    childs_mapped, mapped = os.pipe2(os.O_CLOEXEC)
    try:
        flags = kernel.CLONE_PARENT | signal.SIGCHLD
        for name in request["namespaces"]:
            flags |= NAMESPACES[name]
        try:
            pid = kernel.clone(flags)
        except OSError as error:
            text = _TOO_MANY if error.errno == errno.ENOSPC else str(error)
            return {"stage": "namespaces", "errno": error.errno or 0, "text": text}, None
        if pid == 0:
            os.close(mapped)
            Child(request, report=childs_report, mapped=childs_mapped, program=program).become(descriptors)
        pidfd = os.pidfd_open(pid)
        answer: Answer = {"pid": pid}
        try:
            _map_users(request, pid)
            os.write(mapped, b"1")
        except OSError as error:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            answer.update({"stage": "user namespace", "errno": error.errno or 0, "text": str(error)})
        os.close(childs_report)
        childs_report = -1
        said = os.read(report, MAX_MESSAGE)
        if said and "stage" not in answer:
            answer.update(json.loads(said))
        return answer, pidfd
    finally:
        for each in (report, childs_report, childs_mapped, mapped):
            if each >= 0:
                os.close(each)


def _map_users(request: Request, pid: int) -> None:
    """Who there is in its user namespace: whom it becomes, or whom we are, and the groups that it needs."""
    if "user" not in request["namespaces"]:
        return
    identity = request["identity"]
    if identity is None:
        uids, gids = [os.geteuid()], [os.getegid()]
        with contextlib.suppress(FileNotFoundError):
            _write(f"/proc/{pid}/setgroups", "deny")
    else:
        uids, gids = [identity["uid"]], [identity["gid"], *identity["groups"]]
    _write(f"/proc/{pid}/uid_map", "".join(f"{uid} {uid} 1\n" for uid in uids))
    _write(f"/proc/{pid}/gid_map", "".join(f"{gid} {gid} 1\n" for gid in gids))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]))
