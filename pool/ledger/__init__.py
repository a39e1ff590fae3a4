"""All pool decisions, pure: events in, effects out. No I/O, no trio, no clock but the `now` it is given."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pool.ledger.book import Ledger as Ledger
    from pool.ledger.effects import Effect as Effect
    from pool.ledger.events import Event as Event

_HOMES = {"Ledger": "book", "Effect": "effects", "Event": "events"}


def __getattr__(name: str) -> Any:
    # The client takes a record or two from here, and should not wait for all decisions to be imported.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
