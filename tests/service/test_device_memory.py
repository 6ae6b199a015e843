from pathlib import Path

import pytest
import torch

from service.device_memory import DeviceMemory, process_memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")


def samples_of(memory: DeviceMemory) -> dict[str, float]:
    return {sample.name: sample.value for family in memory.collect() for sample in family.samples}


def test_on_a_cpu_the_process_is_measured_against_what_it_may_have() -> None:
    samples = samples_of(DeviceMemory(torch.device("cpu")))
    assert 0 < samples["restore_device_memory_used_bytes"] < samples["restore_device_memory_total_bytes"]


def test_a_containers_limit_counts_when_it_is_less_than_the_machine_has(tmp_path: Path) -> None:
    (limit := tmp_path / "memory.max").write_text("1000000\n")
    assert process_memory(cgroup_limit=limit)[1] == 1_000_000


def test_a_container_without_a_limit_may_have_what_the_machine_has(tmp_path: Path) -> None:
    (limit := tmp_path / "memory.max").write_text("max\n")
    assert process_memory(cgroup_limit=limit)[1] == process_memory(cgroup_limit=tmp_path / "none")[1]


def test_a_device_that_cannot_be_measured_takes_no_other_metric_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> tuple[int, int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert samples_of(DeviceMemory(torch.device("cuda"))) == {}
