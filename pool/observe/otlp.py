"""Spans by OpenTelemetry's SDK, sent as OTLP over HTTP. Imported by `pool.observe.tracing`, on demand."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import attrs
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pool.observe.spans import Attribute, Stage

_NS = 1_000_000_000
_PATH = "/v1/traces"


@attrs.frozen(eq=False)
class OtlpSpans:
    """Implements `pool.observe.tracing.Spans`. The owner must call `close`, which blocks until all spans are sent or
    given up.
    """

    provider: TracerProvider

    @classmethod
    def to(cls, endpoint: str | None) -> OtlpSpans:
        """Sends in batches, from a thread. None: where OpenTelemetry's variables say."""
        provider = make_provider()
        exporter = OTLPSpanExporter() if endpoint is None else OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    @contextlib.contextmanager
    def span(self, name: str, **attributes: Attribute) -> Iterator[None]:
        with self.provider.get_tracer("vmpool").start_as_current_span(name, attributes=attributes):
            yield

    def record(
        self, name: str, *, lasted_s: float, stages: Sequence[Stage], parent: str = "", **attributes: Attribute
    ) -> None:
        tracer = self.provider.get_tracer("vmpool")
        ended = time.time_ns()
        began = ended - round(lasted_s * _NS)
        caller = TraceContextTextMapPropagator().extract({"traceparent": parent}, context=Context())
        whole = tracer.start_span(name, context=caller, attributes=attributes, start_time=began)
        within = set_span_in_context(whole, Context())
        for stage in stages:
            begins = began + round(stage.begins_s * _NS)
            part = tracer.start_span(stage.name, context=within, start_time=begins)
            part.end(begins + round(stage.lasts_s * _NS))
        whole.end(ended)

    def close(self) -> None:
        self.provider.shutdown()


def make_provider() -> TracerProvider:
    """Named vmpool, unless OTEL_SERVICE_NAME says otherwise."""
    attributes = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "vmpool"), SERVICE_VERSION: version("vmpool")}
    return TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
