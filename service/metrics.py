"""What Prometheus sees. One registry an app, so that two apps in one process do not share counts."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import route_template

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARE_BUCKETS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Base units; every label's values come from a fixed set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests_total", "Answers given", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = self._seconds(
            "http_request_duration_seconds", "From the request's head to the answer's end", ["method", "route"]
        )
        self.queue_seconds = self._seconds("restore_queue_seconds", "Waiting for a turn")
        self.decode_seconds = self._seconds("restore_decode_seconds", "Decoding the photo and its masks")
        self.infer_seconds = self._seconds("restore_infer_seconds", "Restoring: detector, filler, composition")
        self.compose_seconds = self._seconds("restore_compose_seconds", "Of those: deciding on the mask, composing")
        self.encode_seconds = self._seconds("restore_encode_seconds", "Encoding the answer")
        self.in_progress = Gauge(
            "restore_requests_in_progress", "Photos waiting or in the works", registry=self.registry
        )
        self.requests_limit = Gauge(
            "restore_requests_limit",
            "Photos that may wait or be in the works; one more is refused",
            registry=self.registry,
        )
        self.queue_tiles = Gauge("restore_queue_tiles", "Tiles that wait for the device", registry=self.registry)
        self.tiles = Counter("restore_tiles_total", "Tiles computed, by stage", ["stage"], registry=self.registry)
        self.device_busy_seconds = Counter(
            "restore_device_busy_seconds_total", "Seconds in which the device computed a batch", registry=self.registry
        )
        self.batch_size = Histogram(
            "restore_batch_size", "Tiles in a batch", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.pixels = Counter("restore_pixels_total", "Pixels of restored photos", registry=self.registry)
        self.rejected = Counter(
            "restore_rejected_total", "Photos not restored, by problem", ["reason"], registry=self.registry
        )
        self.codec_workers_lost = Counter(
            "restore_codec_workers_lost_total",
            "Processes that decode and encode, lost in a call: died, time, memory",
            ["reason"],
            registry=self.registry,
        )
        self.damage_ratio = Histogram(
            "restore_damage_ratio", "Share of a photo that was damaged", buckets=SHARE_BUCKETS, registry=self.registry
        )
        self.reloads = Counter(
            "restore_model_reload_total", "Releases loaded: activated, or refused", ["result"], registry=self.registry
        )
        for result in ("activated", "refused"):
            self.reloads.labels(result)  # there from the start: an increase from nothing is none to Prometheus
        self.releases_refused = Gauge(
            "restore_releases_refused",
            "Releases in the store that would be served, had they not been refused",
            registry=self.registry,
        )
        self.ready = Gauge("restore_ready", "1 while photos can be restored, as /readyz has it", registry=self.registry)
        self.store_up = Gauge(
            "restore_model_store_up", "1 if the model store answered when it was last looked at", registry=self.registry
        )
        self.model_info = Gauge(
            "restore_model_info", "1 for the release being served", ["version", "sha256"], registry=self.registry
        )

    def _seconds(self, name: str, documentation: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(name, documentation, labels or [], buckets=SECONDS_BUCKETS, registry=self.registry)

    def serving(self, version: str, sha256: str) -> None:
        self.model_info.clear()
        self.model_info.labels(version, sha256).set(1)

    def as_text(self) -> bytes:
        return generate_latest(self.registry)


class MeasuringMiddleware:
    """Counts and times every answer, the ones that an error cut short included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_seconds = time.monotonic()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            self._count(scope, status, time.monotonic() - started_seconds)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
        route = route_template(scope)
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.request_seconds.labels(method, route).observe(seconds)
        if (method, route) == ("POST", "/restore") and status >= 400:
            self.metrics.rejected.labels(scope.get("problem", "internal-error")).inc()
