"""What the service has on the host by name is still its own: looked after now and then, while it runs.

Files in /run and /tmp are removed by cleaners, and by people. The service would be out of reach for ever without a
word, and another one could take its VMs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import structlog
import trio

from pool.clock import RunningClock
from pool.endpoint import Endpoint, ServiceRunningError
from pool.runtime import VmsDirectory

_log = structlog.get_logger("vmpool.premises")

LOOK_EACH_S: Final = 5.0

LOOKS: Final = 3
"""So often another service is found in our place before we believe it: one that is about to be refused has taken the
locks, too, and gives them back.
"""


@attrs.define(eq=False, kw_only=True)
class Premises:
    """Socket, locks and the directory of the VMs; and how long the service has stood still, which is told."""

    endpoint: Endpoint
    vms: VmsDirectory
    moved: Callable[[], Awaitable[None]]
    """Called when the endpoint has another listener."""
    _stood_s: float = attrs.field(default=0.0, init=False)
    _others: int = attrs.field(default=0, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)

    async def run(self) -> None:
        """Looks until `leave`. Raises EndpointError when another service has come in the place of this one, or what is
        missing cannot be put back: then its VMs are to be let go of.
        """
        with self._scope:
            while True:
                await trio.sleep(LOOK_EACH_S)
                self._tell_of_standstill()
                try:
                    moved = self._look()
                except ServiceRunningError as error:
                    self._others += 1
                    if self._others == LOOKS:
                        raise
                    _log.warning("somebody else is in our place", error=str(error))
                    continue
                self._others = 0
                if moved:
                    await self.moved()

    def _look(self) -> bool:
        """Whether the endpoint has another listener."""
        self.vms.look_after()
        moved = self.endpoint.look_after()
        if moved:
            _log.warning("the socket was removed; listening anew", socket=str(self.endpoint.path))
        return moved

    def leave(self) -> None:
        """Ends `run`."""
        self._scope.cancel(reason="the service leaves")

    def _tell_of_standstill(self) -> None:
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, RunningClock) and clock.stood_s > self._stood_s:
            _log.warning("the service stood still", seconds=round(clock.stood_s - self._stood_s, 2))
            self._stood_s = clock.stood_s
