"""How full the memory is that photos are restored in: the GPU's, or on a CPU what this process may have."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""In a container: its limit in bytes, or `max`."""
OWN_PAGES = Path("/proc/self/statm")


class DeviceMemory(Collector):
    """Measured when Prometheus asks; without samples where it cannot be measured."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            used_bytes, total_bytes = gpu_memory(self._device) if self._device.type == "cuda" else process_memory()
        # a device that has failed, or a system without /proc: whoever asks must still get all the rest
        except (RuntimeError, OSError):
            return
        yield GaugeMetricFamily("restore_device_memory_used_bytes", "Memory of the device in use", used_bytes)
        yield GaugeMetricFamily("restore_device_memory_total_bytes", "Memory that the device has", total_bytes)


def gpu_memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use, by anyone, and in all."""
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return total_bytes - free_bytes, total_bytes


def process_memory(own_pages: Path = OWN_PAGES, cgroup_limit: Path = CGROUP_LIMIT) -> tuple[int, int]:
    """Bytes resident, and the machine's or the container's, whichever is less. Raises OSError where Linux is not."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    used_bytes = int(own_pages.read_text(encoding="ascii").split()[1]) * page_bytes
    total_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
    if cgroup_limit.exists() and (limit := cgroup_limit.read_text(encoding="ascii").strip()) != "max":
        total_bytes = min(total_bytes, int(limit))
    return used_bytes, total_bytes
