"""Which service a session's VMs come from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from vmpool import sync
from vmpool.client.errors import ServiceUnavailableError
from vmpool.frameworks.pytest_plugin.wishes import setting


@contextlib.contextmanager
def chosen_pool(config: pytest.Config, *, size: int) -> Iterator[sync.Pool]:
    """A service that is named must run. Otherwise it is the one that runs, or one of the session's own, which keeps
    `size` VMs and ends with the block.
    """
    named = setting(config, "socket") or os.environ.get("VMPOOL_SOCKET", "")
    with contextlib.ExitStack() as ends:
        if setting(config, "standalone"):
            pool = ends.enter_context(sync.standalone(size=size))
        elif named:
            pool = ends.enter_context(sync.connect(named))
        else:
            try:
                pool = ends.enter_context(sync.connect())
            except ServiceUnavailableError:
                pool = ends.enter_context(sync.standalone(size=size))
        yield pool
