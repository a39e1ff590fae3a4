"""Makes another process issue system calls, by ptrace(2), as a guest does that has taken over its QEMU. For x86-64."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SEIZE, INTERRUPT, GETREGS, SETREGS, SINGLESTEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
TRACE_EXIT, EXIT_STOP = 0x40, 6
"""PTRACE_O_TRACEEXIT, and the event that comes of it."""
WALL: Final = 0x40000000

_REGISTERS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
"""`struct user_regs_struct`."""

_ARGUMENTS: Final = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_SYSCALL: Final = b"\x0f\x05"
_SCRATCH: Final = 64 * 1024
"""Below its stack, where it has nothing."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long


class CaughtError(Exception):
    """The kernel ended it for what it tried."""


class Puppet:
    """Of a process, whose main thread goes on as before at the end. For one thread of ours."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._alive = True

    def __enter__(self) -> Self:
        self._place = _a_system_call_of(self._pid)
        self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDWR)
        self._ptrace(SEIZE, TRACE_EXIT)
        self._ptrace(INTERRUPT)
        os.waitpid(self._pid, WALL)
        self._registers = self._read()
        self._free = self._registers["rsp"] - _SCRATCH
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._memory)
        if self._alive:
            self._write(self._registers)
            self._ptrace(DETACH)

    def put(self, data: bytes) -> int:
        """Where it has these bytes now."""
        self._free -= len(data) + 16 & ~15
        os.pwrite(self._memory, data, self._free)
        return self._free

    def perform(self, number: int, *words: int) -> int:
        """The call's result, an error as a negative number. Raises CaughtError."""
        registers = {**self._registers, "rax": number, "orig_rax": -1, "rip": self._place}
        registers.update(zip(_ARGUMENTS, words, strict=False))
        self._write(registers)
        self._ptrace(SINGLESTEP)
        _, status = os.waitpid(self._pid, WALL)
        if os.WIFSIGNALED(status) or os.WIFEXITED(status):
            self._alive = False
            raise CaughtError
        if status >> 16 == EXIT_STOP:  # on its way out, perhaps alone: QEMU's own filter ends the one thread for some
            self._ptrace(DETACH)
            self._alive = False
            raise CaughtError
        assert os.WSTOPSIG(status) == signal.SIGTRAP, status
        result = self._read()["rax"]
        return result - (1 << 64) if result >> 63 else result

    def _read(self) -> dict[str, int]:
        block = ctypes.create_string_buffer(8 * len(_REGISTERS))
        self._ptrace(GETREGS, ctypes.addressof(block))
        return dict(zip(_REGISTERS, struct.unpack(f"={len(_REGISTERS)}Q", block.raw), strict=True))

    def _write(self, registers: dict[str, int]) -> None:
        words = [registers[name] & (1 << 64) - 1 for name in _REGISTERS]
        block = ctypes.create_string_buffer(struct.pack(f"={len(_REGISTERS)}Q", *words))
        self._ptrace(SETREGS, ctypes.addressof(block))

    def _ptrace(self, request: int, data: int = 0) -> None:
        arguments = (ctypes.c_long(request), ctypes.c_long(self._pid), ctypes.c_long(0), ctypes.c_long(data))
        if _libc.ptrace(*arguments) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


def _a_system_call_of(pid: int) -> int:
    """Where it has the instruction: the kernel's vdso(7) has it in every process."""
    line = next(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("[vdso]"))
    first, last = (int(end, 16) for end in line.split()[0].split("-"))
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        memory.seek(first)
        return first + memory.read(last - first).index(_SYSCALL)
