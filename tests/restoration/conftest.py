"""Releases of small generators, in a store of their own."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from skimage import data

from restoration.generator import Generator
from restoration.publishing import publish_release
from restoration.release import Release

from .small_generator import encode, make_generator


@pytest.fixture(scope="session")
def scratched_png() -> bytes:
    """A photo of 250 x 240 pixels, one tile, with a white scratch across it."""
    samples = data.astronaut()[:240, 100:350].copy()
    for step in range(220):
        samples[15 + step, 20 + step : 24 + step] = 255
    return encode(samples)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "model_store"


@pytest.fixture
def publish(store: Path, scratched_png: bytes) -> Callable[..., Release]:
    """Publishes a generator, a small one by default, into `store`."""

    def publish(generator: Generator | None = None, **changes) -> Release:
        about = {
            "golden": scratched_png,
            "report_dir": None,
            "model_card": "# A release for the tests\n",
            "recipe": {"name": "test", "num_steps": 0},
            "data_fingerprint": "none",
            "scores": {"psnr_db": 21.5},
            "code_revision": "0" * 40,
            "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        }
        return publish_release(store, generator or make_generator(), **(about | changes))

    return publish
