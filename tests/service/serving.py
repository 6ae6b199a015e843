"""A small release that really detects and fills, photos to send it, and what is asked of a service that serves it."""

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from restoration.generator import DetectFill, DetectFillConfig
from restoration.publishing import publish_release
from service.context import ServiceContext

from ..restoration.small_generator import add_to_every_sample

MakeClient = Callable[..., TestClient]


def white_detector(correction: float | None = None) -> DetectFill:
    """A tiny generator whose detector calls exactly the near-white pixels damage; its filler has random weights.

    correction: what its denoiser adds to every sample; None for a generator without one.
    """
    torch.manual_seed(0)
    generator = DetectFill(
        DetectFillConfig(
            detector_channels=(4, 4, 4, 4),
            detector_dilations=(1,),
            filler_channels=(4, 4, 4, 4),
            filler_dilations=(1,),
            denoiser_channels=() if correction is None else (4, 4),
        )
    )
    if generator.denoiser is not None and generator.denoiser.head.bias is not None:
        add_to_every_sample(generator.denoiser, correction)
    detector = generator.detector
    for parameter in detector.parameters():
        parameter.data.zero_()
    for phase in range(4):  # a 2x2 block's four pixels go through the net side by side
        detector.stem.weight.data[phase, phase::4, 1, 1] = 1.0
        detector.head.weight.data[phase, phase, 1, 1] = 40.0
    assert detector.head.bias is not None
    detector.head.bias.data.fill_(-40.0 * 1.35)  # three colours, less 0.5 each: white is 1.5
    return generator


def grey_photo(height_px: int = 96, width_px: int = 128) -> np.ndarray:
    """(H, W, 3) uint8: a smooth, darkish picture in which nothing is white."""
    rows = np.linspace(40, 160, height_px)[:, None, None]
    columns = np.linspace(0, 40, width_px)[None, :, None]
    samples: np.ndarray = (rows + columns + np.array([0, 5, 10])).astype(np.uint8)
    return samples


def scratched_photo(height_px: int = 96, width_px: int = 128) -> np.ndarray:
    """The same with a white scratch, four pixels wide."""
    samples = grey_photo(height_px, width_px)
    samples[:, width_px // 2 : width_px // 2 + 4] = 255
    return samples


def encode(samples: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(samples).save(encoded, format, **options)
    return encoded.getvalue()


def decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image)


def publish(store: Path, correction: float | None = None) -> str:
    """Returns the version."""
    release = publish_release(
        store,
        white_detector(correction),
        golden=encode(scratched_photo()),
        report_dir=None,
        model_card="A generator for tests.",
        recipe={},
        data_fingerprint="none",
        scores={},
        code_revision="test",
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return release.version


def wait_until_ready(client: TestClient | httpx.Client, timeout_seconds: float = 30.0) -> None:
    give_up_at = time.monotonic() + timeout_seconds
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < give_up_at, answer.text
        time.sleep(0.02)


def context_of(client: TestClient) -> ServiceContext:
    assert isinstance(client.app, FastAPI)
    context: ServiceContext = client.app.state.context
    return context


def assert_problem(answer: Any, status: int, name: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:photo-restoration:problem:{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem
