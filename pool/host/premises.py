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

from pool.host.clock import RunningClock
from pool.host.endpoint import Endpoint, EndpointError
from pool.host.runtime import VmsDirectory

_log = structlog.get_logger("vmpool.premises")

LOOK_EACH_S: Final = 5.0

LOOKS: Final = 3
"""So often in a row something is not in order before we believe it. Another service that is about to be refused has
taken the locks, too, and gives them back; and a removal may be still under way.
"""


@attrs.define(eq=False, kw_only=True)
class Premises:
    """Socket, locks and the directory of the VMs; and how long the service has stood still, which is told."""

    endpoint: Endpoint
    vms: VmsDirectory
    moved: Callable[[], Awaitable[None]]
    """Called when the endpoint has another listener."""
    _stood_s: float = attrs.field(default=0.0, init=False)
    _failures: int = attrs.field(default=0, init=False)
    """In a row."""
    _moved: bool = attrs.field(default=False, init=False)
    """The endpoint has another listener, and nobody was told yet: something else was not in order."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)

    async def run(self) -> None:
        """Looks until `leave`. Raises EndpointError when another service has come in the place of this one, or what is
        missing cannot be put back, and that LOOKS times in a row: then its VMs are to be let go of.
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
                    _log.warning("our place on the host is not in order; it is looked at again", error=str(error))
                    continue
                self._failures = 0
                if self._moved:
                    self._moved = False
                    await self.moved()

    def _look(self) -> None:
        # The socket's directory first: its group is the endpoint's to say, and the VMs' may be below it.
        if self.endpoint.look_after():
            self._moved = True
            _log.warning("the socket was removed; listening anew", socket=str(self.endpoint.path))
        self.vms.look_after()

    def leave(self) -> None:
        """Ends `run`."""
        self._scope.cancel(reason="the service leaves")

    def _tell_of_standstill(self) -> None:
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, RunningClock) and clock.stood_s > self._stood_s:
            _log.warning("the service stood still", seconds=round(clock.stood_s - self._stood_s, 2))
            self._stood_s = clock.stood_s
