"""Seams and grids: does where the tiles lie show in the result?

The same photo is restored with two grids of tiles. Their difference should be small everywhere, and have no line in its
spectrum at the tiles' stride. It is also restored from a scan that begins elsewhere: what both scans show should come
out alike, as far as the edge that was cut away has no part in it.
"""

from collections.abc import Sequence

import numpy as np

from restoration.passes import OVERLAP_PX, TILE_PX
from restoration.restorer import restore_photo
from restoration.tile_generator import TileGenerator
from training.cases import make_case, photo_of
from training.overlays import OverlayBank

STRIDE_PX = TILE_PX - OVERLAP_PX
NUM_STRIDES = 5
SIDE_PX = STRIDE_PX * NUM_STRIDES + TILE_PX
"""A photo of so many tiles a side; its spectrum is taken over a whole number of strides, so that a line has a bin."""
NUM_HARMONICS = 4
CUT_PX = 96
"""So much is cut off at the top and at the left: whole cells of the networks, and no whole stride."""
REACH_PX = 128
"""What is so near to where it was cut is not compared: there the network may well answer otherwise."""
CORNER_PX = 293
"""A prime, so that what is mirrored has no period in common with the tiles."""


def measure_seams(
    photos: Sequence[np.ndarray], bank: OverlayBank, generator: TileGenerator, *, num_photos: int = 3
) -> dict[str, float]:
    """Worst over a few damaged photos, mirrored until they are many tiles wide; levels are of 0 to 255.

    `mean_levels`: mean absolute difference; `smooth_levels`: the largest difference of 9 x 9 means, what an eye could
    see; `line_over_median`: power of the difference's profile at the stride's frequency and its harmonics over the
    median power, 10 being what noise reaches once in a thousand bins; `cut_mean_levels`, `cut_smooth_levels`: the first
    two of the photo and of what is left of it when it is cut at the top and at the left.
    """
    worst: dict[str, float] = {}
    for index, photo in enumerate(photos[:num_photos]):
        case = make_case(photo, f"photo {index}", "mixtures", bank, seed=7_000 + index)
        damaged = mirror(case.damaged, SIDE_PX)
        of_grids, of_cut = difference_of_grids(damaged, generator), difference_of_cut(damaged, generator)
        found = {
            "mean_levels": float(np.abs(of_grids).mean()),
            "smooth_levels": float(np.abs(_box_mean(of_grids)).max()),
            "line_over_median": line_over_median(of_grids, STRIDE_PX),
            "cut_mean_levels": float(np.abs(of_cut).mean()),
            "cut_smooth_levels": float(np.abs(_box_mean(of_cut)).max()),
        }
        worst = {name: max(worst.get(name, 0.0), value) for name, value in found.items()}
    return worst


def mirror(photo: np.ndarray, side_px: int) -> np.ndarray:
    """(H, W, 3) uint8 to (side_px, side_px, 3): its corner, mirrored as often as needed, at its own scale."""
    photo = photo[:CORNER_PX, :CORNER_PX]
    missing = [(0, max(0, side_px - extent)) for extent in photo.shape[:2]]
    return np.pad(photo, (*missing, (0, 0)), mode="symmetric")[:side_px, :side_px]


def difference_of_grids(damaged: np.ndarray, generator: TileGenerator) -> np.ndarray:
    """(H, W) float32 in levels, mean over the colours: restored with one grid, less restored with another."""
    one, other = (_restore(damaged, generator, offset_px) for offset_px in (0, STRIDE_PX // 2))
    return _mean_over_colours(one - other)


def difference_of_cut(damaged: np.ndarray, generator: TileGenerator) -> np.ndarray:
    """(h, w) float32 in levels: restored whole, less restored without its top and left, where both show the same."""
    whole, cut = (_restore(damaged[px:, px:], generator) for px in (0, CUT_PX))
    return _mean_over_colours(whole[CUT_PX:, CUT_PX:] - cut)[REACH_PX:, REACH_PX:]


def _restore(damaged: np.ndarray, generator: TileGenerator, offset_px: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 to (H, W, 3) float32, in levels."""
    return restore_photo(photo_of(damaged), generator, offset_px=offset_px).samples.astype(np.float32)


def _mean_over_colours(difference: np.ndarray) -> np.ndarray:
    mean: np.ndarray = difference.mean(axis=2)
    return mean


def line_over_median(difference: np.ndarray, period_px: int) -> float:
    """The strongest of the first harmonics of `period_px` in the row and column profiles, over the median power."""
    strongest = 0.0
    for axis in (0, 1):
        profile = np.abs(difference).mean(axis=axis)
        profile = profile[: len(profile) // period_px * period_px]
        power = np.abs(np.fft.rfft(profile - profile.mean())) ** 2
        num_periods = len(profile) // period_px
        # Neighbours only: a photo's content has most of its power at low frequencies
        for harmonic in range(1, NUM_HARMONICS + 1):
            line = harmonic * num_periods
            around = np.r_[power[max(1, line - num_periods + 1) : line], power[line + 1 : line + num_periods]]
            strongest = max(strongest, float(power[line] / max(float(np.median(around)), 1e-12)))
    return strongest


def _box_mean(difference: np.ndarray, side_px: int = 9) -> np.ndarray:
    """(H, W) to the means over all squares that lie inside."""
    sums = np.pad(difference.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    s = side_px
    mean: np.ndarray = (sums[s:, s:] - sums[:-s, s:] - sums[s:, :-s] + sums[:-s, :-s]) / (s * s)
    return mean
