"""Structured logs: one line a request, nothing of what was uploaded.

What is logged while a request is worked on has its id, except by the device's threads: a batch is of several.
"""

import logging
import math
import re
import sys
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import answer_unexpected_error
from service.keys import KEY_PREFIX
from service.settings import Settings
from service.tracing import add_trace_id

REQUEST_ID_HEADER = "X-Request-ID"
SAFE_REQUEST_ID = re.compile(rf"(?!{KEY_PREFIX})[A-Za-z0-9._-]{{1,64}}")
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked for every few seconds by machines: logged at debug level."""

log = structlog.get_logger(__name__)


def configure_logs(settings: Settings) -> None:
    """Send structlog's lines and the standard library's (uvicorn's) through one formatter to standard error."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *([add_trace_id] if settings.tracing_enabled else []),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=())],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers(settings.log_format)],
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(OnceAMinute("socket.accept() out of system resource"))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # What libraries say at debug level is not for logs: Pillow repeats a photo's tags there.
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO), force=True)
    for package in ("restoration", "service"):
        logging.getLogger(package).setLevel(level)


class OnceAMinute(logging.Filter):
    """Of what begins so, which asyncio says thousands of times a second while no connection can be accepted."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = beginning
        self._quiet_until_seconds = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(self._beginning):
            return True
        now = time.monotonic()
        if now < self._quiet_until_seconds:
            return False
        self._quiet_until_seconds = now + 60.0
        return True


def renderers(log_format: str) -> list[structlog.types.Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Plain, because the default shows local variables, and those hold what was uploaded.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


class RequestLogMiddleware:
    """Give every request an id, return it in the answer's headers, and log one line when the answer is complete.

    It is also where an unforeseen error ends, because its traceback must carry the request's id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = choose_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER, ""))
        scope["request_id"] = request_id
        started_seconds = time.monotonic()
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                log.exception("failed")
                if status is not None:
                    raise
                await answer_unexpected_error(Request(scope))(scope, receive, send_with_id)
            finally:
                log_answer(scope, status, time.monotonic() - started_seconds)


def log_answer(scope: Scope, status: int | None, seconds: float) -> None:
    log.log(
        logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO,
        "answered",
        method=scope["method"][:16],
        route=route_template(scope),
        status=status,
        problem=scope.get("problem"),
        key_name=scope.get("key_name"),
        seconds=round(seconds, 4),
    )


def choose_request_id(offered: str) -> str:
    """The client's own id where it is short, harmless in a log and no key of ours, else a new one."""
    return offered if SAFE_REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def route_template(scope: Scope) -> str:
    """The route's template, never the raw path: a client must not be able to make up labels and log fields."""
    return getattr(scope.get("route"), "path", "unmatched")
