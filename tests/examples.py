"""How many examples a property tries: VMPOOL_EXAMPLES_FACTOR multiplies what its test asks for."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

FACTOR = float(os.environ.get("VMPOOL_EXAMPLES_FACTOR", "1"))


def examples(number: int, **options: Any) -> settings:
    """Settings for a test that is satisfied with `number` examples on a busy machine."""
    return settings(max_examples=max(1, round(number * FACTOR)), **options)
