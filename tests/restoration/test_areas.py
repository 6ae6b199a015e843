"""Against `scipy.ndimage.label`, which is the yardstick: the same areas, whatever their numbers."""

import numpy as np
import pytest
from scipy import ndimage

from restoration import areas
from restoration.areas import BAND_PX, find_areas

SIZES = [(1, 1), (1, 50), (50, 1), (BAND_PX, 40), (2 * BAND_PX + 7, 65)]


def masks(size: tuple[int, int]) -> list[np.ndarray]:
    """Nothing, everything, specks, noise, blobs, and diagonal lines one sample wide."""
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, size), 2) > 0.1
    lines = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 9 == 0
    noise = rng.random(size)
    return [np.zeros(size, bool), np.ones(size, bool), noise < 0.02, noise < 0.5, blobs, lines, lines[:, ::-1]]


def numbers_of_samples(mask: np.ndarray) -> np.ndarray:
    """(H, W) int, -1 where the mask is not set."""
    found = find_areas(mask)
    numbers = np.full(mask.shape, -1)
    for rows, of_band in found.in_bands():
        numbers[rows][mask[rows]] = of_band
    assert found.num == len(np.unique(numbers[mask]))
    return numbers


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("few", [0.0, 1.0], ids=["by samples", "by runs"])
def test_areas_are_those_of_scipy(size, few, monkeypatch):
    monkeypatch.setattr(areas, "FEW", few)
    for mask in masks(size):
        numbers = numbers_of_samples(mask)
        expected, num = ndimage.label(mask, structure=np.ones((3, 3)))
        assert np.array_equal(numbers >= 0, mask)
        pairs = np.unique(np.stack([numbers[mask], expected[mask]]), axis=1)
        assert pairs.shape[1] == num == len(np.unique(numbers[mask]))
