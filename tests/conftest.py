"""What tests of several packages need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .ray_cluster import RayCluster, ray_cluster
from .service.serving import publish


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one release, 0001, which calls white damage."""
    path = tmp_path_factory.mktemp("store")
    publish(path)
    return path


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A Ray cluster of two nodes with a processor each; whoever kills one replaces it."""
    with ray_cluster() as cluster:
        yield cluster
