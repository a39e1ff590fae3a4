"""What a test wishes of its VMs."""

from __future__ import annotations

from typing import Any, Final

import pytest

NODE_ID_BYTES: Final = 256
"""The longest value of a label."""

TIMEOUT_S: Final = 60.0


def setting(config: pytest.Config, name: str) -> Any:
    """An option of the command line, or else of the configuration file."""
    given = config.getoption(f"vmpool_{name}")
    return config.getini(f"vmpool_{name}") if given is None else given


def wishes_of(item: pytest.Item) -> dict[str, Any]:
    """Arguments for `Pool.vm`: of the test's markers, where the closest one wins, and of the session's settings.

    Raises pytest.UsageError.
    """
    try:
        timeout = float(setting(item.config, "timeout") or TIMEOUT_S)
    except ValueError as error:
        raise pytest.UsageError(f"vmpool_timeout: {error}; give seconds") from error
    wishes: dict[str, Any] = {
        "profile": setting(item.config, "profile"),
        "timeout": timeout,
        "labels": {"pytest": item.nodeid.encode()[-NODE_ID_BYTES:].decode(errors="ignore")},
    }
    for marker in reversed(list(item.iter_markers("vmpool"))):
        if marker.args:
            raise pytest.UsageError(f"{item.nodeid}: the marker vmpool takes keywords only, as Pool.vm has them")
        labels = wishes["labels"] | (marker.kwargs.get("labels") or {})
        wishes |= {**marker.kwargs, "labels": labels}
    return wishes
