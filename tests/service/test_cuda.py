"""`python -m service` on a GPU; skipped where there is none."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from skimage import data

from restoration.photo import decode_photo
from restoration.release import list_releases, read_release
from restoration.restorer import Restorer

from ..docker.processes import REPOSITORY, free_port, running, running_service, status_of, wait_for
from .serving import assert_problem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")

STORE = REPOSITORY / "model_store"


def make_png(index: int, side_px: int = 384) -> bytes:
    """A photograph with scratches, of its own for each index."""
    photo = Image.fromarray(data.astronaut()).resize((side_px, side_px + 16 * index))
    draw, rng = ImageDraw.Draw(photo), np.random.default_rng(index)
    for _ in range(4):
        ends = rng.uniform(0, side_px, (2, 2))
        draw.line([tuple(end) for end in ends], fill=(245, 242, 235), width=3)
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    return encoded.getvalue()


PHOTOS = [make_png(index) for index in range(6)]


@cache
def restorer_of(version: str) -> Restorer:
    return Restorer.load(read_release(STORE, version), device="cuda")


@cache
def expected_of(version: str, index: int) -> np.ndarray:
    """The samples that one process alone makes of a photo."""
    return restorer_of(version).restore(decode_photo(PHOTOS[index])).samples


def restore(url: str, index: int) -> tuple[str, np.ndarray]:
    """The release's version, and the answer's samples."""
    answer = httpx.post(f"{url}/restore", content=PHOTOS[index], timeout=60)
    answer.raise_for_status()
    return answer.headers["x-model-version"], decode_photo(answer.content).samples


@pytest.fixture(scope="module")
def newer() -> str:
    return list_releases(STORE)[-1]


@pytest.fixture(scope="module")
def older() -> str:
    """The release before the newest; the newest itself where it is the only one."""
    return list_releases(STORE)[-2:][0]


@pytest.fixture(scope="module")
def store(older: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the older release, at first."""
    path = tmp_path_factory.mktemp("served") / "model_store"
    shutil.copytree(STORE / older, path / older)
    return path


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with running_service(store, device="cuda") as (_, url):
        wait_for(lambda: status_of(f"{url}/readyz") == 200 or None, "readiness")
        yield url


def test_an_answer_over_http_is_what_one_process_alone_makes_of_the_photo(url: str, older: str) -> None:
    version, samples = restore(url, 0)
    assert version == older
    assert np.array_equal(samples, expected_of(older, 0))
    assert not np.array_equal(samples, decode_photo(PHOTOS[0]).samples)


def test_an_answer_in_company_is_what_it_is_alone(url: str) -> None:
    asked = list(range(len(PHOTOS))) * 3
    with ThreadPoolExecutor(9) as threads:
        for index, (version, samples) in zip(asked, threads.map(lambda each: restore(url, each), asked), strict=True):
            assert np.array_equal(samples, expected_of(version, index))


def test_a_newer_release_takes_over_while_photos_are_restored(url: str, store: Path, older: str, newer: str) -> None:
    if older == newer:
        pytest.skip("the store holds one release")
    shutil.copytree(STORE / newer, store / ".coming")
    seen: list[tuple[int, str, np.ndarray]] = []

    def send(index: int) -> None:
        version = None
        while version != newer:
            version, samples = restore(url, index)
            seen.append((index, version, samples))

    with ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(send, index) for index in range(4)]
        (store / ".coming").rename(store / newer)
        for each in sending:
            each.result(timeout=60)
    assert {version for _, version, _ in seen} == {older, newer}
    for index, version, samples in seen:
        assert np.array_equal(samples, expected_of(version, index))
    assert httpx.get(f"{url}/livez").status_code == 200


LOSE_THE_DEVICE_WHEN_TOLD = """
import os, runpy, torch
from restoration.cuda import CudaBatches

compute = CudaBatches.compute

def compute_or_assert(self, network, batch_size, inputs):
    if os.path.exists(os.environ["LOSE_THE_DEVICE"]):
        torch.arange(4, device="cuda")[torch.tensor([1000], device="cuda")]  # the kernel asserts
    return compute(self, network, batch_size, inputs)

CudaBatches.compute = compute_or_assert
runpy.run_module("service", run_name="__main__")
"""


def test_a_device_that_is_lost_turns_the_service_red(tmp_path: Path, newer: str) -> None:
    port, trigger = free_port(), tmp_path / "now"
    url = f"http://127.0.0.1:{port}"
    environment = {"RESTORE_PORT": str(port), "RESTORE_DEVICE": "cuda", "LOSE_THE_DEVICE": str(trigger)}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", LOSE_THE_DEVICE_WHEN_TOLD]
    with running(command, f"{url}/livez", PYTHONPATH=path, **environment) as process:
        wait_for(lambda: status_of(f"{url}/readyz") == 200 or None, "readiness")
        assert np.array_equal(restore(url, 0)[1], expected_of(newer, 0))
        trigger.touch()
        for answer in (
            httpx.post(f"{url}/restore", content=PHOTOS[0], timeout=60),
            httpx.get(f"{url}/livez"),
            httpx.get(f"{url}/readyz"),
            httpx.post(f"{url}/restore", content=PHOTOS[1], timeout=60),
        ):
            assert "device-side assert" in assert_problem(answer, 503, "device-broken")["detail"]
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=30) is not None
