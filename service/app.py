"""The application: parts assembled, middleware and routes attached, releases loaded in the background."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.context import ServiceContext
from service.docs import mount_docs
from service.errors import register_error_handlers
from service.etags import code_fingerprint
from service.headers import SecurityHeadersMiddleware, allow_origins
from service.logs import RequestLogMiddleware
from service.metrics import MeasuringMiddleware
from service.page import mount_page
from service.routes import metrics_router, router
from service.settings import Settings
from service.tracing import trace_requests


def create_app(settings: Settings | None = None) -> FastAPI:
    """`settings` default to the environment's; raises pydantic.ValidationError when those are wrong, and KeysInvalid
    when the file of keys is."""
    context = ServiceContext.assemble(settings or Settings())
    code_fingerprint()  # of the sources that were imported: later they may be others
    app = FastAPI(
        title="Photo restoration",
        description="Takes scanned photographs, gives them back without scratches, dust and stains.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    register_error_handlers(app)
    # The one added last is outermost. The log line has the request id and comes after everything was counted; what
    # browsers are told goes for errors, too.
    app.add_middleware(MeasuringMiddleware, metrics=context.metrics)
    app.add_middleware(RequestLogMiddleware)
    if context.settings.cors_origins:
        allow_origins(app, context.settings.cors_origins)
    app.add_middleware(SecurityHeadersMiddleware)
    app.include_router(router)
    if context.settings.metrics_enabled:
        app.include_router(metrics_router)
    mount_docs(app)
    mount_page(app)
    if context.settings.tracing_enabled:
        trace_requests(app)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: ServiceContext = app.state.context
    await asyncio.to_thread(context.queue.start)
    watches = [asyncio.create_task(context.releases.watch())]
    if context.keys:
        watches.append(asyncio.create_task(context.keys.watch()))
    try:
        yield
    finally:
        context.queue.drain()
        for watch in watches:
            watch.cancel()
        await asyncio.to_thread(context.releases.close)
        await asyncio.wait(watches, timeout=0 if context.releases.is_stuck else None)
        await asyncio.to_thread(context.queue.close)
