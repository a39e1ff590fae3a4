"""Where trace spans are sent. OpenTelemetry is an optional extra, imported only if tracing is configured."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Final

import attrs
import trio
from attrs.validators import matches_re, optional

from pool.observe.spans import NO_SPANS, Spans

CLOSE_LIMIT_S: Final = 5.0
"""At the end, to send the remaining spans."""

_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own. Its exporter reads them, and those for headers, certificates and time limits."""


class TracingError(Exception):
    """Tracing is configured, but not available."""


@attrs.frozen(kw_only=True)
class TracingSettings:
    """The `[tracing]` table."""

    otlp_endpoint: str | None = attrs.field(default=None, validator=optional(matches_re(r"https?://[!-~]+")))
    """Of a collector that takes OTLP over HTTP, without a path: http://localhost:4318. The variable
    OTEL_EXPORTER_OTLP_ENDPOINT goes before it."""


@contextlib.asynccontextmanager
async def open_spans(settings: TracingSettings, *, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Spans]:
    """Spans within a block, sent in the background; none if tracing is not configured. Raises TracingError.

    The end waits at most CLOSE_LIMIT_S for the remaining spans, under cancellation too. If the collector cannot be
    reached, spans are lost, and the log reports it.
    """
    named = any(environment.get(name) for name in _ENDPOINT_VARIABLES)
    asked = named or settings.otlp_endpoint is not None
    if not asked or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield NO_SPANS
        return
    try:
        from pool.observe.otlp import OtlpSpans  # noqa: PLC0415 - 200 ms, and often not installed
    except ImportError as error:
        raise TracingError(
            f"tracing is configured, but {error.name} is not installed: `.venv/bin/pip install -e '.[tracing]'` in the "
            "checkout (for a wheel see docs/guide.md, Trace spans), or remove otlp_endpoint, enable_tracing and "
            f"{_ENDPOINT_VARIABLES[-1]}"
        ) from error
    spans = OtlpSpans.to(None if named else settings.otlp_endpoint)
    try:
        yield spans
    finally:
        with trio.move_on_after(CLOSE_LIMIT_S, shield=True):
            await trio.to_thread.run_sync(spans.close, abandon_on_cancel=True)
