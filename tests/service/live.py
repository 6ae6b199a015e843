"""The service on a real port, in a thread of this process: what a browser or a shell needs, without another start."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from service.server import uvicorn_config
from service.settings import Settings

from .serving import wait_until_ready


class _Server(uvicorn.Server):
    """Says when it listens, and where."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @property
    def address(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Yields the address of `app`, on a free port, ready."""
    server = _Server(uvicorn_config(app, Settings(port=0)))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert server.listens.wait(timeout=30)
        with httpx.Client(base_url=server.address) as client:
            wait_until_ready(client)
        yield server.address
    finally:
        server.should_exit = True
        thread.join()
