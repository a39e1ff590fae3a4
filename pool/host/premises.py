"""Periodic checks that the service's socket, locks and directories still exist and are its own.

Cleaners and people remove files in /run and /tmp. The service would become unreachable without any sign, and another
service could take its VMs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import structlog
import trio

from pool.host.clock import RunningClock
from pool.host.endpoint import Endpoint, EndpointError
from pool.host.runtime import VmsDirectory

_log = structlog.get_logger("vmpool.premises")

LOOK_EACH_S: Final = 5.0

LOOKS: Final = 3
"""Failed checks in a row before the service gives up. Another service that is about to be refused holds the locks for a
moment, and a removal may still be under way.
"""


@attrs.define(eq=False, kw_only=True)
class Premises:
    """Checks the socket, the locks and the VMs' directory, and logs standstills of the service."""

    endpoint: Endpoint
    vms: VmsDirectory
    moved: Callable[[], Awaitable[None]]
    """Called when the endpoint has a new listener."""
    _stood_s: float = attrs.field(default=0.0, init=False)
    _failures: int = attrs.field(default=0, init=False)
    """In a row."""
    _moved: bool = attrs.field(default=False, init=False)
    """The endpoint has a new listener, but `moved` was not called yet, as another check failed."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)

    async def run(self) -> None:
        """Checks until `leave`. Raises EndpointError if, LOOKS times in a row, another service has taken this one's
        place or a missing file cannot be restored; the caller must then detach the VMs.
        """
        with self._scope:
            while True:
                await trio.sleep(LOOK_EACH_S)
                self._tell_of_standstill()
                try:
                    self._look()
                except EndpointError as error:
                    self._failures += 1
                    if self._failures == LOOKS:
                        raise
                    _log.warning("the socket, locks or directories are not in order; retrying", error=str(error))
                    continue
                self._failures = 0
                if self._moved:
                    self._moved = False
                    await self.moved()

    def _look(self) -> None:
        # The socket's directory first: the endpoint sets its group, and the VMs' directory may be below it.
        if self.endpoint.look_after():
            self._moved = True
            _log.warning("the socket was removed; listening again", socket=str(self.endpoint.path))
        self.vms.look_after()

    def leave(self) -> None:
        """Ends `run`."""
        self._scope.cancel(reason="the service leaves")

    def _tell_of_standstill(self) -> None:
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, RunningClock) and clock.stood_s > self._stood_s:
            _log.warning("the service stood still", seconds=round(clock.stood_s - self._stood_s, 2))
            self._stood_s = clock.stood_s
