"""Spans for OpenTelemetry, if the setting asks for them; needs the extra `tracing`.

A caller's `traceparent` (W3C Trace Context) makes the request's span a child of the caller's. Where spans go is said by
OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and others.
"""

from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI

UNTRACED = "/livez$,/readyz$,/metrics$,/static/,/docs"
"""Asked for all the time, or of no interest."""
TRACED_HEADERS = ["Server-Timing", "X-Damage-Ratio", "X-Model-Version", "X-Request-ID", "X-Suspected-From"]
SERVICE_NAME = "photo-restoration"


def is_installed() -> bool:
    """Whether the extra is."""
    return all(
        find_spec(name) for name in ("opentelemetry.instrumentation.fastapi", "opentelemetry.exporter.otlp.proto.http")
    )


def trace_requests(app: FastAPI) -> None:
    """A span for each request, which has the answer's headers; sent in the background, and at the exit."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Not Resource.create, where our name would win over the one in OTEL_SERVICE_NAME.
    resource = Resource({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=UNTRACED,
        http_capture_headers_server_response=TRACED_HEADERS,
        exclude_spans=["receive", "send"],
    )


def add_trace_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog's: the `trace_id` of the request that a line belongs to."""
    from opentelemetry.trace import format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
    return event
