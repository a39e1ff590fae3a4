"""Structured logs to stderr: lines for people on a terminal, JSON for journals and files."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any, Final, TextIO, cast

import structlog

from pool.observe.log_output import LogOutput
from pool.observe.terminal import visible
from pool.observe.tracebacks import render_traceback, write_traceback

_OURS: Final = "vmpool"
_STDERR: Final = 2

_render_traceback: Final = structlog.processors.ExceptionRenderer(render_traceback)


def configure_logs(*, json: bool | None = None, verbose: bool = False) -> None:
    """Sends structlog and the libraries' stdlib logs to stderr. `json` None: JSON unless stderr is a terminal.

    A library's INFO is not ours: grpclib logs every cancelled call. Ours is a state change that matters in production.
    `verbose` is about ours, too: h2 and hpack say several lines for each frame.
    """
    as_json = not os.isatty(_STDERR) if json is None else json
    stderr = cast("TextIO", LogOutput(_STDERR, tell=_dropped_as_json if as_json else _dropped_as_text))
    level = logging.DEBUG if verbose else logging.INFO
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_subsystem,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [_render_traceback, _in_order, structlog.processors.JSONRenderer()]
        if as_json
        else [_make_visible, structlog.dev.ConsoleRenderer(colors=True, exception_formatter=write_traceback)]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_NamedLogger, file=stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(level)


_DROPPED: Final = "lines of this log were dropped: nobody read it"


def _dropped_as_json(lines: int) -> str:
    return f'{{"dropped": {lines}, "event": "{_DROPPED}", "level": "warning", "subsystem": "logs"}}\n'


def _dropped_as_text(lines: int) -> str:
    return f"[warning  ] {_DROPPED} dropped={lines} subsystem=logs\n"


class _NamedLogger(structlog.PrintLogger):
    def __init__(self, name: str = _OURS, *, file: TextIO) -> None:
        super().__init__(file)
        self.name = name


def _add_subsystem(logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Each line says which part of the service it is from, as Kata's do: `vm` for the logger vmpool.vm."""
    record = event.get("_record")  # of a library's, or the client's, by way of stdlib
    name = logger.name if record is None else record.name
    event.setdefault("subsystem", name.removeprefix(f"{_OURS}.") if name != _OURS else "service")
    return event


def _in_order(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What each line has comes first, so that lines can be read, and searched for their beginnings."""
    first = {key: event[key] for key in ("timestamp", "level", "subsystem", "event") if key in event}
    return {**first, **event}


def _make_visible(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Errors and evidence may quote guests. The renderer quotes values of several lines, but not the message."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value, kept="" if key == "event" else "\n\t")
    return event
