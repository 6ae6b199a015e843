"""Spans go to a real collector: one that listens on a port and understands OTLP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from service.settings import Settings
from service.tracing import add_trace_id

from .serving import MakeClient, encode, scratched_photo

pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="the extra `tracing` is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN_ID}-01"}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue[Any]]:
    """What a collector is sent, a batch at a time."""
    batches: Queue[Any] = Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                batches.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield batches
        server.shutdown()


@pytest.fixture
def traced(received: Queue[Any], make_client: MakeClient) -> TestClient:
    return make_client(tracing_enabled=True)


def test_a_request_is_a_span_below_its_callers_and_says_what_the_answer_says(
    traced: TestClient, received: Queue[Any]
) -> None:
    answer = traced.post("/restore", content=encode(scratched_photo()), headers=TRACEPARENT)
    (resource_spans,) = received.get(timeout=30).resource_spans
    (span,) = resource_spans.scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, CALLERS_SPAN_ID)
    assert span.name == "POST /restore"
    said = {attribute.key: attribute.value.array_value.values for attribute in span.attributes}
    for header in ("server-timing", "x-damage-ratio", "x-model-version", "x-request-id"):
        (value,) = said[f"http.response.header.{header.replace('-', '_')}"]
        assert value.string_value == answer.headers[header]
    named = {attribute.key: attribute.value.string_value for attribute in resource_spans.resource.attributes}
    assert named["service.name"] == "photo-restoration"


def test_the_lines_of_the_log_have_the_trace_and_health_checks_leave_none(
    traced: TestClient, received: Queue[Any]
) -> None:
    with structlog.testing.capture_logs([add_trace_id]) as lines:
        traced.get("/livez", headers=TRACEPARENT)
        traced.get("/models", headers=TRACEPARENT)
    traces = {line["route"]: line.get("trace_id") for line in lines if line["event"] == "answered"}
    assert traces == {"/livez": None, "/models": TRACE_ID}
    (resource_spans,) = received.get(timeout=30).resource_spans
    assert [span.name for span in resource_spans.scope_spans[0].spans] == ["GET /models"]


def test_without_the_extra_the_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    monkeypatch.setattr("service.tracing.is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'photo-restoration\[tracing\]'"):
        Settings(model_store=store, tracing_enabled=True)
