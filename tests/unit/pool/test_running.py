"""The tests' own service: one that does not start is told of at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import service_home


def test_a_service_that_ends_before_it_is_ready_fails_its_test_with_its_log(tmp_path: Path) -> None:
    with service_home("[profiles.default]\nsize = -1", image_directory=tmp_path) as home:
        home.notices.settimeout(5)  # enough to see that it is not this that ends the wait
        with pytest.raises(AssertionError, match=r"profiles\.default\.size"):
            home.start()
