"""The coordinator, with somebody who looks at each event and effect."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.ledger.effects import Effect
from pool.ledger.events import Event


class Observer(Protocol):
    def event_due(self, event: Event) -> None: ...

    def event_applied(self, event: Event) -> None: ...

    def effect_due(self, effect: Effect) -> None: ...


@attrs.define(eq=False, kw_only=True)
class ObservedCoordinator(Coordinator):
    observer: Observer

    def _apply(self, event: Event, vms: trio.Nursery) -> None:
        self.observer.event_due(event)
        super()._apply(event, vms)
        self.observer.event_applied(event)

    def _perform(self, effect: Effect, vms: trio.Nursery) -> None:
        self.observer.effect_due(effect)
        super()._perform(effect, vms)
