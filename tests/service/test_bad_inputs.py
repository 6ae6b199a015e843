"""Every bad input of `docs/bad-inputs.md`, to a running service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bad_inputs import PAGE, SETTINGS, BadInput, as_page, bad_inputs
from .serving import assert_problem, encode, grey_photo
from .test_server import ServiceProcess

INPUTS = bad_inputs()
MAX_GROWTH_MIB = 400
"""Of the service and its workers together: some uploads of 20 MB, and what Python keeps of them."""


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store), "RESTORE_CODEC_PROCESSES": "1"} | SETTINGS) as service:
        service.wait_until_ready()
        photo = encode(grey_photo())
        assert service.client.post("/restore", content=photo).content == photo
        yield service


def peak_mib(pid: int) -> float:
    """Of the process and its children, each at its own highest."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [pid, *(int(child) for path in children for child in path.read_text(encoding="ascii").split())]
    found = [re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{each}/status").read_text(encoding="ascii")) for each in pids]
    return sum(int(match[1]) for match in found if match) / 1024


@pytest.fixture(scope="module")
def peak_before_mib(service: ServiceProcess) -> float:
    return peak_mib(service.process.pid)


@pytest.mark.parametrize("bad", INPUTS, ids=[bad.name for bad in INPUTS])
def test_a_bad_input_is_refused(service: ServiceProcess, peak_before_mib: float, bad: BadInput) -> None:
    answer = service.client.post(f"/restore?{bad.query}", **bad.request)
    assert_problem(answer, bad.status, bad.problem)


def test_none_of_them_cost_memory_a_worker_or_the_next_photo_anything(
    service: ServiceProcess, peak_before_mib: float
) -> None:
    photo = encode(grey_photo())
    assert service.client.post("/restore", content=photo).content == photo
    assert peak_mib(service.process.pid) - peak_before_mib < MAX_GROWTH_MIB
    log = "".join(service.log)
    assert "codec worker lost" not in log
    assert "Traceback" not in log


def test_there_are_sixty_of_them_and_the_page_lists_each() -> None:
    assert len(INPUTS) >= 60
    assert len({bad.name for bad in INPUTS}) == len(INPUTS)
    assert PAGE.read_text(encoding="utf-8") == as_page(INPUTS), "run python -m tests.service.bad_inputs"
