"""What tests of several packages need."""

from pathlib import Path

import pytest

from .service.serving import publish


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one release, 0001, which calls white damage."""
    path = tmp_path_factory.mktemp("store")
    publish(path)
    return path
