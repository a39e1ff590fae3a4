"""Whether the host has memory to spare, decided from readings with hysteresis."""

from __future__ import annotations

import enum
import math
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le, lt

from vmm.memory import MemoryReading


class MemoryState(enum.Enum):
    OK = "ok"
    LOW = "low"


@attrs.frozen(kw_only=True)
class MemoryPolicy:
    """When memory is low, and when it no longer is.

    Idle VMs are a cache, so they are evicted early, as systemd asks of all services that have a cache: it notifies them
    at 200 ms of stall in 2 s, which is 10 %. Killers act much later (systemd-oomd at 60 % of *full* stall for 30 s,
    oomd similarly), so that a pool that gives memory back in time is not killed. Android's lmkd begins at 7 %, for
    interactive use.
    """

    pressure: float = attrs.field(default=10.0, validator=and_(gt(0), le(100)))
    """Memory is low above this, in percent of the last ten seconds (`some avg10`)."""
    pressure_clear: float = attrs.field(default=5.0, validator=and_(ge(0), lt(100)))
    """Pressure is well clear at this or below."""
    available_mib: int = attrs.field(default=512, validator=ge(0))
    """Memory is low below this. The kernel begins to reclaim in earnest at some tens of MiB, and Kubernetes evicts at
    100; a VM of 256 MiB that is handed out may touch all of that within a second, so two of those have room."""
    available_clear_mib: int = attrs.field(default=768, validator=ge(0))
    """Available memory is well clear at this or above."""
    clear_s: float = attrs.field(default=10.0, validator=ge(0))
    """How long both must be well clear. Less than avg10's ten seconds would judge the same stall twice."""
    falling: float = attrs.field(default=0.85, validator=and_(gt(0), le(1)))
    """If the pressure is at most this fraction of the last reading, the stall is over and only its average lags: no
    more memory is asked for. oomd's ratio; without new stalls avg10 falls to 0.82 of itself in two seconds."""
    interval_s: float = attrs.field(default=2.0, validator=gt(0))
    """Between readings. The kernel updates its averages every two seconds."""

    @pressure_clear.validator
    def _check_pressure(self, _attribute: Any, value: float) -> None:
        if value > self.pressure:
            raise ValueError(
                f"pressure_clear: {value:g} is more than pressure ({self.pressure:g}); choose a lower value"
            )

    @available_clear_mib.validator
    def _check_available(self, _attribute: Any, value: int) -> None:
        if value < self.available_mib:
            raise ValueError(
                f"available_clear_mib: {value} is less than available_mib ({self.available_mib}); choose a higher value"
            )


@attrs.frozen(kw_only=True)
class HostMemory:
    """The state of the host's memory."""

    state: MemoryState
    available_mib: int | None
    some_avg10: float | None
    reason: str
    """A sentence, for logs and Status."""


@attrs.define(eq=False, kw_only=True)
class MemoryJudge:
    """Judges one reading after the other."""

    policy: MemoryPolicy
    _state: MemoryState = attrs.field(default=MemoryState.OK, init=False)
    _clear_since: float = attrs.field(default=math.inf, init=False)
    """Infinite while memory is not well clear."""
    _last_pressure: float | None = attrs.field(default=None, init=False)
    _first: bool = attrs.field(default=True, init=False)

    def judge(self, reading: MemoryReading, *, now: float) -> tuple[HostMemory, bool]:
        """The verdict, and whether it is to be reported: the first one, each change, and each that asks for memory."""
        policy, pressure, available = self.policy, reading.some_avg10, reading.available_mib
        stalls = pressure is not None and pressure > policy.pressure
        short = available is not None and available < policy.available_mib
        clear = (pressure is None or pressure <= policy.pressure_clear) and (
            available is None or available >= policy.available_clear_mib
        )
        last, self._last_pressure = self._last_pressure, pressure
        falling = pressure is not None and last is not None and pressure <= last * policy.falling
        self._clear_since = min(self._clear_since, now) if clear else math.inf

        before = self._state
        if stalls or short:
            self._state = MemoryState.LOW
        elif now - self._clear_since >= policy.clear_s:
            self._state = MemoryState.OK
        to_report = self._first or self._state is not before or short or (stalls and not falling)
        verdict = HostMemory(
            state=self._state,
            available_mib=available,
            some_avg10=pressure,
            reason=self._reason(reading, stalls=stalls, short=short),
        )
        self._first = False
        return verdict, to_report

    def _reason(self, reading: MemoryReading, *, stalls: bool, short: bool) -> str:
        policy, pressure, available = self.policy, reading.some_avg10, reading.available_mib
        parts = []
        if stalls:
            whose = "of this service" if reading.host is None or pressure != reading.host.some_avg10 else "of this host"
            parts.append(
                f"tasks {whose} waited for memory {pressure:g} % of the last 10 s, more than {policy.pressure:g} %"
            )
        if short:
            parts.append(f"{available} MiB are available, less than {policy.available_mib} MiB")
        if not parts and self._state is MemoryState.LOW:
            parts.append(f"memory was low, and has not been well clear of the limits for {policy.clear_s:g} s yet")
        if not parts:
            parts.append("enough memory is available")
        if self._first:
            if pressure is None and available is None:
                parts.append(
                    "this kernel reports neither memory pressure nor MemAvailable, so memory is never considered low"
                )
            elif pressure is None:
                parts.append("this kernel has no pressure stall information (CONFIG_PSI), so only MemAvailable counts")
        return "; ".join(parts)
