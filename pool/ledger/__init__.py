"""All pool decisions, pure: events in, effects out. No I/O, no trio, no clock but the `now` it is given."""

from pool.ledger.book import Ledger as Ledger
from pool.ledger.effects import Effect as Effect
from pool.ledger.events import Event as Event
