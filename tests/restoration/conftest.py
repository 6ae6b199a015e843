"""Releases of small generators, in a store of their own."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from skimage import data

from restoration.generator import Generator
from restoration.publishing import publish_release
from restoration.release import Release, read_release

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


Publish = Callable[..., Release]


@pytest.fixture
def publish(store: Path, scratched_png: bytes) -> Publish:
    """Publishes a generator, a small one by default, into `store`."""

    def publish(generator: Generator | None = None, **changes) -> Release:
        return publish_small(store, generator or make_generator(), **({"golden": scratched_png} | changes))

    return publish


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory, scratched_png: bytes) -> Path:
    """A store with one release, to be copied: publishing takes many times longer."""
    store = tmp_path_factory.mktemp("finished") / "model_store"
    publish_small(store, make_generator(), golden=scratched_png)
    return store


@pytest.fixture
def release(store: Path, finished_store: Path) -> Release:
    """Release 0001 of `store`, of a small generator."""
    shutil.copytree(finished_store, store)
    return read_release(store, "0001")


def publish_small(store: Path, generator: Generator, **changes) -> Release:
    about = {
        "report_dir": None,
        "model_card": "# A release for the tests\n",
        "recipe": {"name": "test", "num_steps": 0},
        "data_fingerprint": "none",
        "scores": {"psnr_db": 21.5},
        "code_revision": "0" * 40,
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return publish_release(store, generator, **(about | changes))
