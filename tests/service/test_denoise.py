"""`denoise` over HTTP, by a release that can and by one that cannot."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings

from .serving import assert_problem, context_of, decode, encode, grey_photo, publish, scratched_photo, wait_until_ready
from .test_restore import read_form


@pytest.fixture(scope="module")
def denoising(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service whose release adds 51 levels to every sample when it denoises."""
    store = tmp_path_factory.mktemp("denoising") / "store"
    publish(store, correction=0.2)
    settings = Settings(model_store=store, codec_processes=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def brighter(samples: np.ndarray, levels: int) -> np.ndarray:
    return np.minimum(samples.astype(int) + levels, 255)


@pytest.mark.parametrize(("denoise", "levels"), [("1", 51), ("0.5", 26)])
def test_samples_change_all_over_the_photo_by_as_much_as_was_asked_for(
    denoising: TestClient, denoise: str, levels: int
) -> None:
    answer = denoising.post(f"/restore?denoise={denoise}", content=encode(grey_photo()))
    assert answer.status_code == 200, answer.text
    assert np.abs(decode(answer.content) - brighter(grey_photo(), levels)).max() <= 1
    assert answer.headers["x-damage-ratio"] == "0.000000"
    assert f"denoised by {denoise}<".encode() in answer.content


def test_what_is_not_to_be_denoised_comes_back_byte_for_byte(denoising: TestClient) -> None:
    photo = encode(grey_photo(), "JPEG")
    for query in ("", "?denoise=0"):
        assert denoising.post(f"/restore{query}", content=photo).content == photo


def test_a_damaged_photo_is_repaired_first_and_its_ratio_is_the_same(denoising: TestClient) -> None:
    photo = encode(scratched_photo())
    repaired, both = (denoising.post(f"/restore?denoise={denoise}", content=photo) for denoise in (0, 1))
    assert np.abs(decode(both.content) - brighter(decode(repaired.content), 51)).max() <= 1
    assert both.headers["x-damage-ratio"] == repaired.headers["x-damage-ratio"] > "0.000000"
    assert both.headers["etag"] != repaired.headers["etag"]


def test_a_form_tells_by_how_much_and_its_preview_shows_it(denoising: TestClient) -> None:
    answer = denoising.post("/restore?output=all&preview=true&denoise=1", content=encode(grey_photo(), "TIFF"))
    parts = read_form(answer)
    assert json.loads(parts["info"])["denoise"] == 1.0
    before, after = (decode(parts[name]).mean() for name in ("before", "after"))
    assert after - before == pytest.approx(51, abs=1)


def test_its_tiles_are_counted_as_a_stage(denoising: TestClient) -> None:
    tiles = context_of(denoising).metrics.tiles.labels("denoise")
    before = tiles._value.get()
    denoising.post("/restore?denoise=0.3", content=encode(grey_photo()))
    assert tiles._value.get() == before + 1


def test_a_release_that_cannot_denoise_says_so_before_anything_is_restored(client: TestClient) -> None:
    problem = assert_problem(client.post("/restore?denoise=0.1", content=b"no photo"), 422, "denoiser-missing")
    assert "leave denoise out" in problem["detail"]
    assert client.post("/restore?denoise=0", content=encode(grey_photo())).status_code == 200
