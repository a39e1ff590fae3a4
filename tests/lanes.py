"""What pytest-xdist gives to one process: tests that share VMs, templates and services stay together, in their order.

By pytest-xdist's own hook, since its groups have no effect with pytest 9.2: https://github.com/pytest-dev/pytest-xdist/issues/1386
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

ON_QEMU: Final = ("tests/contract/", "tests/integration/")
"""A directory below, or one of these, is one part of the work. Anywhere else a module is."""


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Whoever is done takes the next part. They are in the order in which they were collected: the long ones first."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module.rpartition("/")[0] if module.startswith(ON_QEMU) else module
