"""A Ray cluster of several nodes on this machine: each is a raylet with workers of its own, and can be killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NODE_MEMORY_BYTES = 80 * 2**20
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what later versions do; without it, Ray warns of it
    "OMP_NUM_THREADS": "1",
}


class RayCluster:
    """A head without processors, so that it runs nothing, and nodes with one each."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.nodes = [self.add_node() for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=NODE_MEMORY_BYTES)

    def kill_node(self) -> None:
        """As if its machine lost power."""
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Skips the test where the extra `ray` is not installed."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)  # inherited by every process of the cluster
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed")
    head = {"num_cpus": 0, "object_store_memory": NODE_MEMORY_BYTES, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        yield RayCluster(cluster)
    finally:
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
