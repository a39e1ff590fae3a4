"""The tests' own service: one that does not start is told of at once, and so are its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import service_home


def test_a_service_that_ends_before_it_is_ready_fails_its_test_with_its_log(tmp_path: Path) -> None:
    with service_home("[profiles.default]\nsize = -1", image_directory=tmp_path) as home:
        home.notices.settimeout(5)  # enough to see that it is not this that ends the wait
        with pytest.raises(AssertionError, match=r"profiles\.default\.size"):
            home.start()


def test_an_error_in_its_log_fails_its_test_unless_it_was_announced(tmp_path: Path) -> None:
    error = b'{"event": "it broke", "level": "error"}\n'
    with (
        pytest.raises(AssertionError, match="it broke"),
        service_home("", image_directory=tmp_path) as home,
    ):
        home.log.write_bytes(b'{"event": "all is well", "level": "info"}\n' + error)
    with service_home("", image_directory=tmp_path, logs_error=("it br.ke",)) as home:
        home.log.write_bytes(error)
