"""Against scipy's filters, which are the yardstick."""

import numpy as np
import pytest
from scipy import ndimage

from restoration.windows import BAND_PX, largest_within, least_within

SIZES = [(1, 1), (1, 40), (40, 1), (BAND_PX, 30), (BAND_PX + 1, 33), (2 * BAND_PX + 50, 70)]


def maps(size: tuple[int, int]) -> list[np.ndarray]:
    """Noise, a few specks, nothing, everything, and a mask."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, size).astype(np.uint8)
    specks = rng.random(size) < 0.01
    return [noise, noise * specks, np.zeros(size, np.uint8), np.full(size, 255, np.uint8), specks, ~specks]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("by_px", [0, 1, 5, 24])
def test_windows_are_those_of_scipy(size, by_px):
    for samples in maps(size):
        largest, least = largest_within(samples, by_px), least_within(samples, by_px)
        assert largest.dtype == least.dtype == samples.dtype
        assert np.array_equal(largest, ndimage.maximum_filter(samples, 2 * by_px + 1))
        assert np.array_equal(least, ndimage.minimum_filter(samples, 2 * by_px + 1))


def test_what_is_given_stays_as_it_is():
    (noise, *_) = maps((200, 50))
    before = noise.copy()
    largest_within(noise, 8)
    assert np.array_equal(noise, before)
