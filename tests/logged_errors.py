"""An ERROR in the log fails the test that did not announce it, by `@pytest.mark.logs_error("what it says")`.

Of a service in a process of its own, see `errors_in`.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with recorded() as errors:
        result = yield
    announced = [re.compile(mark.args[0]) for mark in item.iter_markers("logs_error")]
    unannounced = [error for error in errors if not any(pattern.search(error) for pattern in announced)]
    assert not unannounced, "ERROR in the log:\n" + "\n".join(unannounced)
    missing = [pattern.pattern for pattern in announced if not any(pattern.search(error) for error in errors)]
    assert not missing, f"announced, but not in the log: {missing}"
    return result


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The errors that this process logs meanwhile, but for those that `structlog.testing.capture_logs` takes."""
    errors: list[str] = []
    handler = _Recorder(errors)

    def record(_logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in ("error", "critical", "exception"):
            fields = {name: value for name, value in event.items() if name not in ("event", "exc_info")}
            errors.append(f"{event['event']} {fields}\n{_traceback(event.get('exc_info'))}")
        return event

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[record, *before])
    logging.getLogger().addHandler(handler)
    try:
        yield errors
    finally:
        logging.getLogger().removeHandler(handler)
        structlog.configure(processors=before)


def errors_in(log: Path, *, announced: tuple[str, ...] = ()) -> list[str]:
    """What was logged there as JSON and none of these patterns announces; tracebacks that were not logged, too."""
    patterns = [re.compile(pattern) for pattern in announced]
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if _is_error(line) and not any(pattern.search(line) for pattern in patterns)]


def _is_error(line: str) -> bool:
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except (ValueError, TypeError, KeyError):
        return line.startswith("Traceback ")


class _Recorder(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        exception = record.exc_info[1] if record.exc_info else None
        self._errors.append(f"{record.name}: {record.getMessage()}\n{_traceback(exception)}")


def _traceback(exc_info: object) -> str:
    return "".join(traceback.format_exception(exc_info)) if isinstance(exc_info, BaseException) else ""
