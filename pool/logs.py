"""Structured logs to stderr: lines for people on a terminal, JSON for journals and files."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure_logs(*, json: bool | None = None, verbose: bool = False) -> None:
    """Sends structlog and the libraries' stdlib logs to stderr. `json` None: JSON unless stderr is a terminal.

    A library's INFO is not ours: grpclib logs every cancelled call. Ours is a state change that matters in production.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    level = logging.DEBUG if verbose else logging.INFO
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=True)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=level if verbose else logging.WARNING, force=True)
