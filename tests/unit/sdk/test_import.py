"""`import vmpool`: what the SDK's name gives."""

from __future__ import annotations

import pytest

import vmpool
import vmpool.client


def test_it_gives_what_the_client_gives() -> None:
    assert set(vmpool.client.__all__) <= set(vmpool.__all__)


def test_it_gives_what_a_command_sends() -> None:
    assert {"CommandExit", "Output", "OutputStream"} <= set(vmpool.__all__)


def test_a_name_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Service'"):
        _ = vmpool.Service  # type: ignore[attr-defined]
