"""Headers that tell browsers what they must not do with an answer, and which other sites may read one.

HSTS is left to whoever terminates TLS.
"""

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import API_KEY_HEADER
from service.examples import PROBLEM_HEADERS, RESTORED_HEADERS
from service.logs import REQUEST_ID_HEADER

NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
"""Should a browser show it after all, it loads and runs nothing. A page has a policy of its own."""

ALLOWED_REQUEST_HEADERS = ("Authorization", API_KEY_HEADER, "Content-Type", "If-None-Match", REQUEST_ID_HEADER)


class SecurityHeadersMiddleware:
    """Adds to every answer what it does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                guard(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, send_guarded if scope["type"] == "http" else send)


def guard(headers: MutableHeaders) -> None:
    headers.setdefault("Content-Security-Policy", NO_PAGE)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    if "last-modified" not in headers:  # only the service's own files have a date, and those may be kept
        headers.setdefault("Cache-Control", "no-store")


def allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Pages of these sites may call the service and read its answers. Keys travel in headers, never as cookies."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=ALLOWED_REQUEST_HEADERS,
        expose_headers=sorted(RESTORED_HEADERS | PROBLEM_HEADERS),
    )
