"""The request that makes a guest unique and configures it before it is handed out."""

from __future__ import annotations

import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .loop import Loop, Timer
    from .system import System

LIMIT_NS = 5_000_000_000
"""Time without progress after which waiting for CPUs or memory to come online fails."""

_INTERVAL_NS = 3_000_000
"""The kernel takes tens of milliseconds to notice hotplugged devices. Polling needs less code than netlink."""

_MAX_RANDOM = 256
"""The most bytes that getrandom always returns in full."""


class FieldError(ValueError):
    """The request's field `part` is invalid."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part} {reason}")
        self.part = part


_HEXADECIMAL = frozenset("0123456789abcdef")
_HOSTNAME = frozenset("-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")


class Preparation:
    """A stream of the session until it is answered. Long work is done in steps, between other work."""

    def __init__(
        self,
        stream: int,
        request: dict[str, Any],
        system: System,
        loop: Loop,
        *,
        on_done: Callable[[int, dict[str, Any]], None],
        on_failure: Callable[[int, Exception], None],
        on_end: Callable[[int], None],
        limit_ns: int = LIMIT_NS,
    ) -> None:
        """Raises ValueError for an invalid request, having done nothing."""
        _check(request)
        self.part = ""
        """The field being applied."""
        self.environment: dict[str, str] = request.get("environment", {})
        self._stream = stream
        self._request = request
        self._system = system
        self._loop = loop
        self._on_done = on_done
        self._on_failure = on_failure
        self._on_end = on_end
        self._limit_ns = limit_ns
        self._cpus: int | None = request.get("vcpus")
        self._memory_mib: int | None = request.get("memory_mib")
        self._reply: dict[str, Any] = {}
        self._deadline_ns = 0
        """Set while waiting."""
        self._problem = ""
        self._timer: Timer | None = None

    def start(self) -> None:
        """Does all that is immediate, and answers at once if that is everything. Raises OSError."""
        get = self._request.get
        system = self._system
        # First: until then a clone draws the same random numbers as its siblings.
        if entropy := get("entropy"):
            self.part = "entropy"
            system.reseed(entropy)
        self._reply["reseeded"] = bool(entropy)
        if count := get("random_bytes"):
            self.part = "random_bytes"
            self._reply["random"] = system.random(count)
        if (clock := get("wall_clock_ns")) is not None:
            self.part = "wall_clock_ns"
            system.set_clock(clock)
        if (hostname := get("hostname")) is not None:
            self.part = "hostname"
            system.set_hostname(hostname)
        if (machine_id := get("machine_id")) is not None:
            self.part = "machine_id"
            self._reply["machine_id"] = system.set_machine_id(machine_id)
        if (vm_uuid := get("vm_uuid")) is not None:
            self.part = "vm_uuid"
            self._reply["vm_uuid"] = system.set_vm_uuid(vm_uuid)
        self._look()

    def _look(self) -> None:
        """Answers if everything is online; otherwise brings up what is plugged in, or waits for more."""
        cpus, memory_mib = self._cpus, self._memory_mib
        self.part = ""
        cpus_online = self._system.cpus_online()
        if memory_mib is not None:
            self._reply["memory_online_mib"] = self._system.memory_online_mib()
        memory_online_mib: int = self._reply.get("memory_online_mib", 0)
        if cpus_online >= (cpus or 0) and memory_online_mib >= (memory_mib or 0):
            if memory_mib is not None:
                self._system.make_room_for_files()  # also if the kernel brought it online by itself
            self._reply["cpus_online"] = cpus_online
            self._reply.update(self._system.report())
            self._on_done(self._stream, self._reply)
        elif not self._deadline_ns:
            self._deadline_ns = time.monotonic_ns() + self._limit_ns
            self._look()
        elif time.monotonic_ns() >= self._deadline_ns:
            there = f"{cpus_online} CPUs" if memory_mib is None else f"{cpus_online} CPUs and {memory_online_mib} MiB"
            wanted = " and ".join(
                ([] if cpus is None else [f"{cpus} CPUs"]) + ([] if memory_mib is None else [f"{memory_mib} MiB"])
            )
            self.part = "vcpus" if cpus_online < (cpus or 0) else "memory_mib"
            raise TimeoutError(
                errno.ETIMEDOUT, f"{there} are online, {wanted} were requested; no more appeared{self._problem}"
            )
        else:
            self._bring_up(self._system.bring_online(cpus=cpus is not None, memory=memory_mib is not None))

    def _bring_up(self, work: Iterator[str]) -> None:
        problem = next(work, None)
        if problem is None:
            self._later(_INTERVAL_NS, self._look)
            return
        if problem:
            self._problem = f" ({problem})"
        else:
            self._deadline_ns = time.monotonic_ns() + self._limit_ns
        self._later(0, lambda: self._bring_up(work))

    def _later(self, delay_ns: int, step: Callable[[], None]) -> None:
        def run() -> None:
            try:
                step()
            except Exception as error:  # noqa: BLE001  (any error is the answer)
                self._on_failure(self._stream, error)

        self._timer = self._loop.call_later(delay_ns, run)

    # Frames that a stream may receive

    def receive(self, _data: bytes) -> None:
        raise ValueError("a preparation takes no data")

    def receive_eof(self) -> None:
        raise ValueError("a preparation takes no data")

    def add_credit(self, _number: int, _count: int) -> None:
        raise ValueError("a preparation takes no credit")

    def signal(self, _number: int) -> None:
        pass

    def cancel(self) -> None:
        """Stops waiting. Changes already made stay."""
        if self._timer is not None:
            self._timer.cancel()
        self._on_end(self._stream)


# Few functions of the interpreter, and the same ones: each is hundreds of blocks of code for TCG to translate.


def _is_hostname(text: str) -> bool:
    return 0 < len(text) <= 64 and _HOSTNAME.issuperset(text)


def _is_machine_id(text: str) -> bool:
    return len(text) == 32 and _HEXADECIMAL.issuperset(text)


def _is_uuid(text: str) -> bool:
    dashes = len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-"
    return dashes and _HEXADECIMAL.issuperset(text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:])


def _is_environment(variables: dict[str, Any]) -> bool:
    return all(
        isinstance(value, str) and name and "=" not in name and "\0" not in name + value
        for name, value in variables.items()
    )


_FIELDS: dict[str, tuple[type, Callable[[Any], bool] | None, str]] = {
    "entropy": (bytes, None, "bytes"),
    "random_bytes": (int, lambda count: 0 < count <= _MAX_RANDOM, f"an int from 1 to {_MAX_RANDOM}"),
    "wall_clock_ns": (int, None, "an int"),
    "hostname": (str, _is_hostname, "1 to 64 letters, digits, '-', '.' and '_'"),
    "machine_id": (str, _is_machine_id, "32 hexadecimal digits in lower case"),
    "vm_uuid": (str, _is_uuid, "8-4-4-4-12 hexadecimal digits in lower case"),
    "environment": (dict, _is_environment, "a dict of names without '=' to values"),
    "vcpus": (int, lambda count: count > 0, "an int of at least 1"),
    "memory_mib": (int, lambda size: size > 0, "an int of at least 1"),
}


def _check(request: dict[str, Any]) -> None:
    """Raises ValueError."""
    for name, value in request.items():
        if name == "op":
            continue
        if name not in _FIELDS:
            raise ValueError(f"{name}: this agent has no such field; rebuild the guest image")
        kind, is_good, what = _FIELDS[name]
        if type(value) is not kind or (is_good is not None and not is_good(value)):
            raise FieldError(name, f"must be {what}")
