"""Uvicorn, with a stop that lets load balancers notice.

Uvicorn by itself closes its port on SIGTERM, so nobody could read a 503 from /readyz. Here the first signal makes the
service drain: it still answers, says not ready, takes no new photo. When what it had is done, uvicorn stops. What is
not done in time is answered before: uvicorn would cancel the requests, and say 500 to each.
"""

import os
import socket
import time
from types import FrameType
from urllib.parse import unquote

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.context import ServiceContext
from service.listening import allow_connections, listen
from service.settings import Settings

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """The first SIGTERM or SIGINT drains; a second one closes every connection, whoever waits on it."""

    def __init__(self, config: uvicorn.Config, context: ServiceContext) -> None:
        super().__init__(config)
        self._queue = context.queue
        self._grace_seconds = context.settings.shutdown_grace_seconds
        self._stop_at_seconds: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The signal is not handed on to uvicorn: it would raise it again after the stop, and a clean stop exits with 0.
        if self._stop_at_seconds is None:
            self._queue.drain()
            self._stop_at_seconds = time.monotonic() + self._grace_seconds
        else:
            self.should_exit = self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if sockets:  # uvicorn says where it listens only if it made them itself
            self._log_started_message(sockets)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at_seconds is not None:
            left_seconds = self._stop_at_seconds - time.monotonic()
            if left_seconds <= 0:
                self._queue.abandon()
            if left_seconds <= 0 or not self._queue.num_jobs:
                # Answers may still be on their way, and uploads on theirs; both get what is left of the grace.
                self.config.timeout_graceful_shutdown = max(1, round(left_seconds))
                self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: Settings) -> None:
    """Returns after a clean stop. Raises KeysInvalid, and InvalidOption when the port cannot be had."""
    allow_connections()
    app = create_app(settings)
    context: ServiceContext = app.state.context
    sockets = listen(settings.host, settings.port)
    DrainingServer(uvicorn_config(app, settings), context).run(sockets)
    if context.releases.is_stuck:
        log.warning("a release that was being loaded did not come to an end and is left behind")
        os._exit(0)  # the interpreter would wait for its thread


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        with_plain_paths(app),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        loop="asyncio",  # the same whatever is installed beside: Ray brings another one
        http="h11",
        h11_max_incomplete_event_size=settings.max_head_bytes,
        timeout_keep_alive=settings.keep_alive_seconds,
    )


def with_plain_paths(app: ASGIApp) -> ASGIApp:
    """A request's target may be a whole URL (RFC 9112, section 3.2.2), which uvicorn takes for a path."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["raw_path"].startswith((b"http://", b"https://")):
            _, _, path = scope["raw_path"].partition(b"://")[2].partition(b"/")
            scope["raw_path"] = b"/" + path
            scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        await app(scope, receive, send)

    return call
