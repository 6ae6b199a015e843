import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from restoration.toning import find_tone


def sepia_print() -> np.ndarray:
    """A grey photograph, toned as a darkroom does it: shadows brown, lights cream."""
    grey = Image.fromarray(data.camera())
    return np.asarray(ImageOps.colorize(grey, black=(35, 20, 10), mid=(140, 110, 80), white=(250, 240, 215)))


def test_a_sepia_print_is_seen_in_grey() -> None:
    toned = sepia_print()
    tone = find_tone(toned)
    assert tone
    view = tone.to_grey(toned)
    assert view.shape == toned.shape
    assert view.dtype == np.uint8
    assert (view == view[:, :, :1]).all()
    luma = np.asarray(Image.fromarray(toned).convert("L")).astype(int)
    assert np.abs(view[:, :, 0] - luma).max() <= 1


def test_a_sepia_print_with_grain_and_a_few_white_scratches_is_still_one() -> None:
    toned = sepia_print().astype(int) + np.random.default_rng(0).normal(0, 2, (512, 512, 3)).astype(int)
    toned[:, 100:104] = 255
    assert find_tone(np.clip(toned, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("photo", [data.astronaut(), data.coffee(), data.chelsea()], ids=["astronaut", "coffee", "cat"])
def test_a_colour_photo_has_no_tone(photo: np.ndarray) -> None:
    assert find_tone(photo) is None


def test_a_grey_photo_is_seen_as_it_is_and_stays_grey() -> None:
    grey = np.repeat(data.camera()[:, :, None], 3, axis=2)
    tone = find_tone(grey)
    assert tone
    assert tone.to_grey(grey) is grey
    painted = np.full_like(grey, (200, 150, 190))
    tone.lay_on(painted, np.ones(grey.shape[:2], bool))
    assert (painted == painted[:, :, :1]).all()


def test_paint_of_sixteen_bits_takes_on_the_tone_without_steps() -> None:
    tone = find_tone(sepia_print())
    assert tone
    ramp = np.linspace(20_000, 40_000, 20_000).astype(np.uint16)
    deep = np.repeat(ramp[None, :, None], 3, axis=2)
    plain = (deep // 257).astype(np.uint8)
    for painted in (deep, plain):
        tone.lay_on(painted, np.ones(painted.shape[:2], bool))
    assert np.abs(deep / 257 - plain).max() < 3
    assert np.diff(deep.astype(int), axis=1).max() < 4


def test_paint_takes_on_the_tone_of_the_print_under_the_mask_alone() -> None:
    toned = sepia_print()
    tone = find_tone(toned)
    assert tone
    painted = np.repeat(data.camera()[:, :, None], 3, axis=2)
    grey, mask = painted.copy(), np.zeros(painted.shape[:2], bool)
    mask[100:300, 50:200] = True
    tone.lay_on(painted, mask)
    assert np.array_equal(painted[~mask], grey[~mask])
    red, _, blue = (painted[mask][:, each].astype(int) for each in range(3))
    assert (red > blue).mean() > 0.95
    luma = np.asarray(Image.fromarray(painted).convert("L")).astype(int)
    assert np.abs(luma - grey[:, :, 0])[mask].max() <= 3


def test_a_photo_of_one_pixel_is_in_one_tone() -> None:
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    tone = find_tone(pixel)
    assert tone
    assert tone.to_grey(pixel).shape == (1, 1, 3)
