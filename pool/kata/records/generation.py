"""The two generations of Kata that are understood."""

from __future__ import annotations

import enum
from typing import Final


class Generation(enum.Enum):
    """Each knows its own fields only."""

    RUNTIME_1X = "runtime 1.x"
    CURRENT = "current"


Generations = frozenset[Generation]

BOTH: Final = frozenset(Generation)
ONLY_1X: Final = frozenset({Generation.RUNTIME_1X})
ONLY_CURRENT: Final = frozenset({Generation.CURRENT})
