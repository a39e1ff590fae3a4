"""Every test here is checked for leaks."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _checked_for_leaks(leak_check: None) -> None:
    pass
