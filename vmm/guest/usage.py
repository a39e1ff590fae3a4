"""What a guest says of itself: its resources and its clock, each figure checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vmm.errors import AgentProtocolError
from vmm.untrusted import is_number
from vmm.words.preparation import GuestClock
from vmm.words.usage import Usage

_MAX_CPUS: Final = 2**16
_MAX_PROCESSES: Final = 2**22
"""Linux's maximum on every machine."""
_MAX_LOAD_HUNDREDTHS: Final = 100 * _MAX_PROCESSES
_MAX: Final = 2**63 - 1

_NUMBERS: Final[Mapping[str, int]] = {
    "cpus_online": _MAX_CPUS,
    "cpu_busy_ms": _MAX,
    "cpu_idle_ms": _MAX,
    "memory_total_bytes": _MAX,
    "memory_available_bytes": _MAX,
    "processes": _MAX_PROCESSES,
    "load_1m_hundredths": _MAX_LOAD_HUNDREDTHS,
    "disk_total_bytes": _MAX,
    "disk_available_bytes": _MAX,
    "uptime_ms": _MAX,
    "wall_clock_ns": _MAX,
}


def usage_of(answer: Mapping[str, Any]) -> Usage:
    """Raises AgentProtocolError for figures that no machine has."""
    numbers = {name: _number(answer, name, most=most) for name, most in _NUMBERS.items()}
    for what in ("memory", "disk"):
        if numbers[f"{what}_available_bytes"] > numbers[f"{what}_total_bytes"]:
            raise AgentProtocolError(f"the guest agent says that more {what} is available than there is")
    return Usage(load_1m=numbers.pop("load_1m_hundredths") / 100, **numbers)


def clock_of(answer: Mapping[str, Any]) -> GuestClock | None:
    """None from an agent of an earlier version. Raises AgentProtocolError."""
    if "wall_clock_ns" not in answer:
        return None
    moved_ns = answer.get("clock_moved_ns")
    if type(moved_ns) is not int:
        raise AgentProtocolError("the guest agent's reply has no field clock_moved_ns of type int")
    return GuestClock(wall_clock_ns=_number(answer, "wall_clock_ns", most=_MAX), moved_ns=moved_ns)


def _number(answer: Mapping[str, Any], name: str, *, most: int) -> int:
    number = answer.get(name)
    if not is_number(number, most=most):
        raise AgentProtocolError(f"the guest agent's reply has no number {name} from 0 to {most}")
    return number
