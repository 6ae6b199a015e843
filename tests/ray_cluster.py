"""A Ray cluster of several nodes on this machine: each is a raylet with workers of its own, and can be killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

NODE: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_log_monitor": False}
HEAD = NODE | {"num_cpus": 0, "include_dashboard": False, "no_monitor": True}
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what later versions do; without it, Ray warns of it
    "OMP_NUM_THREADS": "1",
}
"""Inherited by every process of a node."""


class RayCluster:
    """A head without processors, so that it runs nothing, and nodes with one each."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.nodes = [self.add_node() for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self) -> Any:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            return self._cluster.add_node(num_cpus=1, **NODE)

    def kill_node(self) -> None:
        """As if its machine lost power."""
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def replace_node(self) -> None:
        self.nodes.append(self.add_node())


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Skips the test where the extra `ray` is not installed."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed")
    with mock.patch.dict(os.environ, ENVIRONMENT):
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        yield RayCluster(cluster)
    finally:
        cluster.shutdown()
