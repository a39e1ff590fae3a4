"""Trace spans that are kept in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pool.observe.otlp import OtlpSpans, make_provider


@contextlib.contextmanager
def kept_spans() -> Iterator[tuple[OtlpSpans, InMemorySpanExporter]]:
    """Spans, and where they are once they have ended."""
    exporter, provider = InMemorySpanExporter(), make_provider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = OtlpSpans(provider)
    yield spans, exporter
    spans.close()
