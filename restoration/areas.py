"""Connected areas of a mask, by runs: what is set side by side in a row.

A scan's damage is a few thousand runs, and looking at those takes a tenth of the time that numbering each sample does,
and none of its memory. Where there are very many, samples are numbered after all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

BAND_PX = 64
"""Rows that are looked at at a time."""
FEW = 1 / 32
"""Runs for each sample. What it takes to connect one takes as much memory as numbering so many samples."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)

Numbers = Iterator[tuple[slice, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Areas:
    """num: how many there are. in_bands: yields rows, and of all samples that are set there, in their order, (N,), the
    numbers of their areas, from 0 on; nothing for rows where none is."""

    num: int
    in_bands: Callable[[], Numbers]


def find_areas(mask: np.ndarray) -> Areas:
    """mask: (H, W) bool; what touches, at a corner, too, is of one area."""
    runs = _runs(mask)
    if runs is None:
        of_samples, num = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
        return Areas(num, partial(_of_samples, of_samples, mask))
    starts, ends, first_of_bands = runs
    num, numbers = _connect(starts, ends, mask.shape[1] + 1)
    return Areas(num, partial(_of_runs, numbers, ends - starts, first_of_bands))


def _of_samples(numbers: np.ndarray, mask: np.ndarray) -> Numbers:
    """numbers: (H, W) int, from 1 on."""
    for top in range(0, len(mask), BAND_PX):
        rows = slice(top, top + BAND_PX)
        if (where := mask[rows]).any():
            yield rows, numbers[rows][where] - 1


def _of_runs(numbers: np.ndarray, lengths_px: np.ndarray, first_of_bands: list[int]) -> Numbers:
    """numbers, lengths_px: (num_runs,) each; first_of_bands: the first run of each band, and their number."""
    for band, (first, end) in enumerate(pairwise(first_of_bands)):
        if end > first:
            rows = slice(band * BAND_PX, (band + 1) * BAND_PX)
            yield rows, np.repeat(numbers[first:end], lengths_px[first:end])


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]] | None:
    """Where runs start and end, (num_runs,) each, as if rows were W + 1 long: the last of each is not set. And the
    first of each band, and their number. None where they are many."""
    height_px, width_px = mask.shape
    changes, first_of_bands = [], [0]
    band = np.zeros((BAND_PX, width_px + 1), bool)
    for top in range(0, height_px, BAND_PX):
        rows = mask[top : top + BAND_PX]
        band[: len(rows), :width_px] = rows
        flat = band[: len(rows)].reshape(-1)
        at = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if flat[0]:
            at = np.r_[0, at]
        changes.append(at + top * (width_px + 1))
        first_of_bands.append(first_of_bands[-1] + len(at) // 2)
        if first_of_bands[-1] > FEW * mask.size:
            return None
    all_changes = np.concatenate(changes)
    return all_changes[::2], all_changes[1::2], first_of_bands


def _connect(starts: np.ndarray, ends: np.ndarray, row_px: int) -> tuple[int, np.ndarray]:
    """How many areas there are, and the number of each run's: it touches those of the next row that end no sooner than
    it starts, and start no later than it ends."""
    first = np.searchsorted(ends, starts + row_px, "left")
    num_touched = np.searchsorted(starts, ends + row_px, "right") - first
    indices_end = np.cumsum(num_touched)
    num_pairs = int(indices_end[-1]) if len(starts) else 0
    touched = np.arange(num_pairs) + np.repeat(first - indices_end + num_touched, num_touched)
    ones = np.ones(num_pairs, np.int8)
    graph = csr_array((ones, touched, np.r_[0, indices_end]), shape=(len(starts), len(starts)))
    num, numbers = connected_components(graph, directed=False)
    return int(num), numbers
