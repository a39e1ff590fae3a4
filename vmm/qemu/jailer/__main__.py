"""The jailer: answers requests from its socket, and ends when the socket is closed."""

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
    # Executed as a file, in isolated mode: nothing is imported from the environment or a user's directory.
    sys.path.insert(0, _HOUSE)

from vmm.qemu.jailer import kernel  # noqa: E402 - see above
from vmm.qemu.jailer.child import Child  # noqa: E402
from vmm.qemu.jailer.protocol import MAX_MESSAGE, NAMESPACES, Answer, Request, receive  # noqa: E402

_TOO_MANY = "too many for user.max_user_namespaces or another of that kind (sysctl)"
"""The meaning of the kernel's "no space left on device" here."""


def main(descriptor: int) -> None:
    """Serves until the other end is closed, whichever way its owner ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the kernel may have no keyrings, or a container's filter may forbid them
        kernel.leave_keyring()
    os.set_inheritable(descriptor, False)
    # It is not an error that the service was killed.
    with socket.socket(fileno=descriptor) as service, contextlib.suppress(ConnectionError):
        program = service.recv(MAX_MESSAGE)
        while _answer_one(service, program):
            pass


def _answer_one(service: socket.socket, program: bytes) -> bool:
    """Returns False when the service has closed the socket. Raises ConnectionError if the service is gone."""
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
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # the service will never learn of the process
        raise
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def _serve(request: Request, descriptors: list[int], program: bytes) -> tuple[Answer, int | None]:
    """Returns the answer, and a pidfd that the caller closes."""
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
    """Maps uids and gids in the user namespace: those that the child switches to, or else our own, and its groups."""
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
