"""Trace spans: who gets them, and that nobody else pays for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from pool.observe.otlp import OtlpSpans
from pool.observe.spans import NO_SPANS, Stage
from pool.observe.tracing import TracingError, TracingSettings, open_spans
from tests.spans import kept_spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def kept() -> Iterator[tuple[OtlpSpans, InMemorySpanExporter]]:
    with kept_spans() as kept:
        yield kept


class Collector(HTTPServer):
    """Takes what is exported to it, uncompressed or not at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.names: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.server.names += [span.name for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# -- nobody asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "environment"),
    [(None, {}), (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}), ("http://localhost:4318", {"OTEL_SDK_DISABLED": "TRUE"})],
)
async def test_nobody_gets_spans_without_asking(endpoint: str | None, environment: dict[str, str]) -> None:
    async with open_spans(TracingSettings(otlp_endpoint=endpoint), environment=environment) as spans:
        assert spans is NO_SPANS
        with spans.span("GetVM", subsystem="factory"):
            spans.record("Acquire", lasted_s=1.0, stages=())


def test_what_serves_does_not_import_opentelemetry() -> None:
    script = """
import sys, trio
import pool.cli.serve, pool.cli.factory
from pool.observe.tracing import TracingSettings, open_spans
async def main():
    async with open_spans(TracingSettings(), environment={}):
        pass
trio.run(main)
heavy = ("opentelemetry", "requests")
print([name for name in sys.modules if name.partition(".")[0] in heavy or name == "pool.observe.otlp"])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# -- somebody did --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_variable", [False, True])
async def test_a_collector_gets_them_by_the_end_of_the_block(
    collector: Collector, by_variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's variable goes before the file."""
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {}
    if by_variable:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        endpoint = "http://127.0.0.1:1"
    async with open_spans(TracingSettings(otlp_endpoint=endpoint), environment=environment) as spans:
        with spans.span("GetVM"):
            pass
    assert (collector.paths, collector.names) == (["/v1/traces"], ["GetVM"])


async def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk")] + ["opentelemetry.sdk.trace"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "pool.observe.otlp")
    with pytest.raises(
        TracingError,
        match=r"opentelemetry\.sdk\S* is not installed: `\.venv/bin/pip install -e '\.\[tracing\]'` in the",
    ):
        async with open_spans(TracingSettings(otlp_endpoint="http://localhost:4318"), environment={}):
            pass


def test_spans_have_their_attributes_and_their_place(kept: tuple[OtlpSpans, InMemorySpanExporter]) -> None:
    spans, exporter = kept
    with spans.span("GetVM", subsystem="factory"), spans.span("GetBaseVM"):
        pass
    inner, outer = exporter.get_finished_spans()
    assert (inner.name, outer.name) == ("GetBaseVM", "GetVM")
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.attributes == {"subsystem": "factory"}
    assert outer.resource.attributes["service.name"] == "vmpool"


def test_an_error_is_told_with_its_span(kept: tuple[OtlpSpans, InMemorySpanExporter]) -> None:
    spans, exporter = kept
    with pytest.raises(ValueError, match="no luck"), spans.span("GetVM"):
        raise ValueError("no luck")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def test_what_is_over_is_told_with_its_stages(kept: tuple[OtlpSpans, InMemorySpanExporter]) -> None:
    spans, exporter = kept
    stages = (Stage(name="queue", begins_s=0.0, lasts_s=0.25), Stage(name="resume", begins_s=0.25, lasts_s=0.5))
    spans.record("Acquire", lasted_s=1.0, stages=stages, parent=PARENT, vm="vm-1")
    queue, resume, whole = exporter.get_finished_spans()
    began, ended = whole.start_time, whole.end_time
    assert began is not None
    assert ended == began + 1_000_000_000
    assert (queue.start_time, queue.end_time) == (began, began + 250_000_000)
    assert (resume.start_time, resume.end_time) == (began + 250_000_000, began + 750_000_000)
    assert whole.attributes == {"vm": "vm-1"}
    assert f"{whole.context.trace_id:032x}" == PARENT.split("-")[1], "the caller's trace goes on"
    assert {span.parent.span_id for span in (queue, resume) if span.parent} == {whole.context.span_id}
    exporter.clear()
    spans.record("Acquire", lasted_s=0.0, stages=())
    (alone,) = exporter.get_finished_spans()
    assert alone.parent is None
