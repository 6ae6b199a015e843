from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings

from .serving import MakeClient, wait_until_ready


@pytest.fixture(scope="session")
def client(store: Path) -> Iterator[TestClient]:
    """A client of a service with the default settings, ready."""
    with TestClient(
        create_app(Settings(model_store=store, codec_processes=2)), raise_server_exceptions=False
    ) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture
def make_client(store: Path) -> Iterator[MakeClient]:
    """Clients of services with other settings; `ready=False` leaves out the wait."""
    clients: list[TestClient] = []

    def make(*, ready: bool = True, **settings: Any) -> TestClient:
        app = create_app(Settings(**{"model_store": store, "codec_processes": 1, **settings}))
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        if ready:
            wait_until_ready(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)
