"""Processes that belong to no session: they outlive their caller, the host's connection and the host's service."""

from __future__ import annotations

import errno
import os

from . import wire
from .commands import window_of
from .kept import Kept
from .outputs import UNLIMITED, Outputs
from .running import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .running import Processes
    from .service import Service

KEPT_BYTES = 2**20
"""Of each stream, unless less is asked for; also the most."""

MAX_RUNNING = 256
MAX_ENDED = 256

_SHARE = 4
"""A quarter of the machine's memory is for kept output."""

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class Detached:
    """One process. Its output is always read, so it never waits for a reader."""

    def __init__(self, processes: Processes, request: dict[str, Any]) -> None:
        """Raises SpawnError or another OSError, or ValueError for an invalid request."""
        tag, keep, stdin = request.get("tag", ""), request.get("keep", KEPT_BYTES), request.get("stdin")
        if not (isinstance(tag, str) and isinstance(keep, int) and 0 < keep <= KEPT_BYTES):
            raise ValueError(f"tag must be a str and keep an int from 1 to {KEPT_BYTES}")
        if not (stdin is None or (isinstance(stdin, bytes) and len(stdin) <= wire.WINDOW)):
            raise ValueError(f"stdin: must be at most {wire.WINDOW} bytes")
        self._processes = processes
        running = [other for other in processes.detached.values() if other.process.exit is None]
        if tag and any(other.tag == tag for other in running):
            raise _refusal(errno.EEXIST, f"a running process has the tag {tag!r}", "tag")
        if len(running) >= MAX_RUNNING:
            raise OSError(errno.EAGAIN, f"{MAX_RUNNING} processes run, the maximum; end some first")
        self.tag: str = tag
        self.process: Process = Process(processes, request, attached=False, on_exit=self._on_exit)
        self.over = False
        """It has ended, and all its output is read."""
        self.kept = {number: Kept(keep, self._on_size) for number in (wire.STDOUT, wire.STDERR)}
        self._outputs = Outputs(
            processes.loop, self.process.spawned, UNLIMITED, on_data=self._on_data, on_over=self._on_over
        )
        processes.detached[self.process.number] = self
        if stdin is not None:
            if stdin:
                self.process.stdin.send(stdin, _discard)
            self.process.stdin.end()

    @property
    def running(self) -> bool:
        return self.process.exit is None

    def info(self) -> dict[str, Any]:
        out, err = self.kept[wire.STDOUT], self.kept[wire.STDERR]
        return {
            **self.process.info(),
            "tag": self.tag,
            "stdout_end": out.end,
            "stdout_kept_from": out.start,
            "stderr_end": err.end,
            "stderr_kept_from": err.start,
        }

    def undo(self) -> None:
        """Kills it with all that it has started, and forgets it."""
        self.process.abandon()
        self._outputs.close()
        self.over = True
        self.forget()

    def forget(self) -> None:
        self._processes.detached.pop(self.process.number, None)
        for kept in self.kept.values():
            kept.shrink(0)

    def _on_data(self, number: int, data: bytes) -> None:
        self.kept[number].append(data)

    def _on_size(self, change: int) -> None:
        self._processes.kept_bytes += change
        if change > 0:
            _relieve(self._processes)

    def _on_exit(self) -> None:
        self._outputs.process_ended()
        ended = [other for other in self._processes.detached.values() if not other.running]
        for other in sorted(ended, key=_end)[:-MAX_ENDED]:
            other.forget()

    def _on_over(self) -> None:
        self.over = True


def _discard(_count: int) -> None:
    pass


def _end(detached: Detached) -> int:
    return detached.process.ended_ns


def _relieve(processes: Processes) -> None:
    """Gives up kept output while it takes up too much of the memory: first that of processes that ended long ago."""
    limit = os.sysconf("SC_PHYS_PAGES") * _PAGE_SIZE // _SHARE
    if processes.kept_bytes <= limit:
        return
    for ended in sorted((other for other in processes.detached.values() if not other.running), key=_end):
        for kept in ended.kept.values():
            kept.shrink(0)
        if processes.kept_bytes <= limit:
            return
    rings = [kept for other in processes.detached.values() for kept in other.kept.values()]
    while processes.kept_bytes > limit:
        largest = max(rings, key=lambda kept: kept.size)
        largest.shrink(largest.size // 2)


def _refusal(number: int, message: str, part: str = "") -> OSError:
    error = OSError(number, message)
    error.part = part  # type: ignore[attr-defined]
    return error


def find_detached(service: Service, request: dict[str, Any]) -> Detached:
    """The process of the request: by its number, or by its tag the running one, or else the last that had it.

    Raises OSError with ESRCH.
    """
    number, tag = request.get("process_id", 0), request.get("tag", "")
    if not (isinstance(number, int) and isinstance(tag, str)):
        raise ValueError("process_id must be an int and tag a str")  # noqa: TRY004 - one kind of error
    found: Detached | None = None
    if number:
        found = service.processes.detached.get(number)
    elif tag:
        tagged = [other for other in service.processes.detached.values() if other.tag == tag]
        found = next((other for other in tagged if other.running), tagged[-1] if tagged else None)
    if found is None:
        if number in service.processes.running:
            raise OSError(errno.ESRCH, f"process {number} belongs to the request that started it")
        raise OSError(errno.ESRCH, f"there is no process {number or repr(tag)}")
    return found


def _find_running(service: Service, request: dict[str, Any]) -> Process:
    """Also one that belongs to a request. Raises OSError with ESRCH."""
    process = service.processes.running.get(request.get("process_id", 0))
    if process is None:
        process = find_detached(service, request).process
    if process.exit is not None:
        raise OSError(errno.ESRCH, f"process {process.number} has ended")
    return process


# Operations: see `service`.


class Start:
    """The stream that starts a process. Cancelled before the host has confirmed the answer, by an EOF, it undoes that:
    the host does not know the process.
    """

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        self._service = service
        self._stream = stream
        window = window_of(request)
        self._detached = Detached(service.processes, request)
        service.channel.send_value(wire.REPLY, stream, {**self._detached.info(), "window": window})
        service.channel.send(wire.EOF + wire.STDOUT, stream)

    def receive(self, _data: bytes) -> None:
        raise ValueError("start takes its data with the request")

    def receive_eof(self) -> None:
        self._service.forget(self._stream)

    def add_credit(self, _number: int, _count: int) -> None:
        raise ValueError("start takes no credit")

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        self._detached.undo()
        self._service.forget(self._stream)


def signal(service: Service, stream: int, request: dict[str, Any]) -> None:
    number = request.get("signal")
    if not isinstance(number, int):
        raise ValueError("signal must be an int")  # noqa: TRY004 - one kind of error
    _find_running(service, request).signal(number, everything=request.get("everything") is True)
    service.channel.send_value(wire.REPLY, stream, {})


def set_size(service: Service, stream: int, request: dict[str, Any]) -> None:
    process = _find_running(service, request)
    if not process.spawned.terminal:
        raise OSError(errno.ENOTTY, f"process {process.number} has no terminal")
    process.resize(request)
    service.channel.send_value(wire.REPLY, stream, {})


def forget(service: Service, stream: int, request: dict[str, Any]) -> None:
    detached = find_detached(service, request)
    if detached.running:
        raise OSError(errno.EBUSY, f"process {detached.process.number} still runs; end it first")
    detached.forget()
    service.channel.send_value(wire.REPLY, stream, {})
