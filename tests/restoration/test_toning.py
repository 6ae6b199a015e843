import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from restoration.toning import is_toned, view_for_detection


def sepia_print() -> np.ndarray:
    """A grey photograph, toned as a darkroom does it: shadows brown, lights cream."""
    grey = Image.fromarray(data.camera())
    return np.asarray(ImageOps.colorize(grey, black=(35, 20, 10), mid=(140, 110, 80), white=(250, 240, 215)))


def test_a_sepia_print_is_seen_in_grey() -> None:
    toned = sepia_print()
    assert is_toned(toned)
    view = view_for_detection(toned)
    assert view.shape == toned.shape
    assert view.dtype == np.uint8
    assert (view == view[:, :, :1]).all()
    luma = np.asarray(Image.fromarray(toned).convert("L")).astype(int)
    assert np.abs(view[:, :, 0] - luma).max() <= 1


def test_a_sepia_print_with_grain_and_a_few_white_scratches_is_still_one() -> None:
    toned = sepia_print().astype(int) + np.random.default_rng(0).normal(0, 2, (512, 512, 3)).astype(int)
    toned[:, 100:104] = 255
    assert is_toned(np.clip(toned, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("photo", [data.astronaut(), data.coffee(), data.chelsea()], ids=["astronaut", "coffee", "cat"])
def test_a_colour_photo_is_seen_as_it_is(photo: np.ndarray) -> None:
    assert not is_toned(photo)
    assert view_for_detection(photo) is photo


def test_a_grey_photo_is_seen_as_it_is() -> None:
    grey = np.repeat(data.camera()[:, :, None], 3, axis=2)
    assert view_for_detection(grey) is grey


def test_a_single_pixel_has_no_tone_to_take_away() -> None:
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    assert view_for_detection(pixel).shape == (1, 1, 3)
