"""What tests of several packages need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .ray_cluster import RayCluster, ray_cluster
from .service.serving import publish


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests out, a file's tests stay together, and so do all that need a cluster."""
    for item in items:
        group = "cluster" if "cluster" in item.path.stem else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


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
