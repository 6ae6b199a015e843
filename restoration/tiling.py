"""Photos to overlapping tiles and back, pure numpy.

Neighbouring tiles are blended with raised-cosine windows, normalised along each axis so that they sum to 1 at every
pixel. The weights of a pixel are then known without a weight accumulator, and a photo can be blended band by band.

Of a network that looks no farther than a tile's margin, what lies inside the margin does not depend on where the tile
lies, if tiles are moved by whole cells of the network: `margin_px` and `cell_px`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from restoration.errors import InvalidOption


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of a photo lie: one at each (top, left), in row-major order."""

    height_px: int
    width_px: int
    tile_px: int
    overlap_px: int
    margin_px: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corners(self) -> Iterator[tuple[int, int]]:
        """The (top, left) of every tile, in the order in which tiles are cut and blended."""
        return ((top, left) for top in self.tops for left in self.lefts)


def plan_tiles(
    height_px: int,
    width_px: int,
    *,
    tile_px: int = 256,
    overlap_px: int = 64,
    margin_px: int = 0,
    cell_px: int = 1,
    offset_px: int = 0,
) -> TilePlan:
    """Lay tiles over a photo so that neighbours overlap by at least `overlap_px`.

    Every tile starts at a multiple of `cell_px`; the last row and column reach the far edge, or less than a cell beyond
    it. Nothing within `margin_px` of a tile's edge is used, except at the photo's own. `offset_px` moves the grid (the
    first row and column stay at the near edge), to compare the results of two grids. Raises InvalidOption for sizes
    that make no grid.
    """
    if min(height_px, width_px, tile_px, cell_px) < 1:
        raise InvalidOption(
            f"a {height_px} x {width_px} photo in tiles of {tile_px} px, cells of {cell_px} px: every size must be at "
            "least 1"
        )
    if not 0 <= overlap_px < tile_px:
        raise InvalidOption(f"overlap_px is {overlap_px}, expected at least 0 and less than the tile's {tile_px}")
    if not 0 <= 2 * margin_px <= overlap_px:
        raise InvalidOption(
            f"margin_px is {margin_px}, expected at least 0 and at most half the overlap's {overlap_px}"
        )
    stride_px = tile_px - overlap_px
    if any(extent % cell_px for extent in (tile_px, stride_px, offset_px)):
        raise InvalidOption(
            f"tile, stride and offset are {tile_px}, {stride_px} and {offset_px} px, not multiples of "
            f"the cell's {cell_px}"
        )
    tops = _starts(height_px, tile_px, stride_px, cell_px, offset_px)
    lefts = _starts(width_px, tile_px, stride_px, cell_px, offset_px)
    return TilePlan(height_px, width_px, tile_px, overlap_px, margin_px, tops, lefts)


def _starts(length_px: int, tile_px: int, stride_px: int, cell_px: int, offset_px: int) -> tuple[int, ...]:
    last = max(0, -(-(length_px - tile_px) // cell_px) * cell_px)
    return tuple(sorted({0, *range(offset_px % stride_px, last, stride_px), last}))


def cut_tiles(samples: np.ndarray, plan: TilePlan) -> Iterator[np.ndarray]:
    """Cut the tiles lazily, row-major.

    samples: (H, W, C) of any dtype; yields (tile_px, tile_px, C), views except where a tile reaches beyond the photo,
    which is mirrored there.
    """
    _expect_size(samples, plan)
    for top, left in plan.corners():
        tile = samples[top : top + plan.tile_px, left : left + plan.tile_px]
        missing = [(0, plan.tile_px - extent) for extent in tile.shape[:2]]
        yield np.pad(tile, (*missing, (0, 0)), mode="reflect") if tile.shape[:2] != (plan.tile_px,) * 2 else tile


def blend_tiles(
    plan: TilePlan, tiles: Iterable[np.ndarray | None], *, num_channels: int = 3
) -> Iterator[tuple[int, np.ndarray]]:
    """Blend tiles, in the order of `cut_tiles`, into bands of whole rows.

    tiles: (tile_px, tile_px, num_channels) float; None stands for a tile that was not computed and contributes 0: the
    pixels under it are meant never to be read. Yields (top, band) as soon as rows are final, band (rows, W,
    num_channels) float32; the bands cover every row once, from top to bottom. Memory is one row of tiles.
    """
    row_windows = _windows(plan.height_px, plan.tops, plan)
    column_windows = _windows(plan.width_px, plan.lefts, plan)
    ends = (*plan.tops[1:], plan.height_px)
    remaining = iter(tiles)
    pending = np.zeros((plan.tile_px, plan.width_px, num_channels), np.float32)  # rows from `top` on
    for top, end, row_window in zip(plan.tops, ends, row_windows, strict=True):
        for left, column_window in zip(plan.lefts, column_windows, strict=True):
            tile = next(remaining)
            if tile is not None:
                _add_tile(pending[:, left : left + plan.tile_px], tile, row_window, column_window)
        yield top, pending[: end - top].copy()
        pending[: plan.tile_px - (end - top)] = pending[end - top :]
        pending[plan.tile_px - (end - top) :] = 0.0


def _add_tile(area: np.ndarray, tile: np.ndarray, row_window: np.ndarray, column_window: np.ndarray) -> None:
    num_rows, num_columns = len(row_window), len(column_window)  # less than a tile where it reaches beyond the photo
    weighted = tile[:num_rows, :num_columns] * row_window[:, None, None]
    weighted *= column_window[:, None]
    area[:num_rows] += weighted


def _windows(length_px: int, starts: tuple[int, ...], plan: TilePlan) -> list[np.ndarray]:
    """One window a tile along one axis, float32; where tiles overlap, their windows sum to 1."""
    total = np.zeros(length_px)
    raw = []
    for start in starts:
        window = _raised_cosine(start, min(length_px - start, plan.tile_px), length_px, plan)
        total[start : start + len(window)] += window
        raw.append(window)
    return [
        (window / total[start : start + len(window)]).astype(np.float32)
        for start, window in zip(starts, raw, strict=True)
    ]


def _raised_cosine(start: int, size_px: int, length_px: int, plan: TilePlan) -> np.ndarray:
    """0 in the margins, sin² ramps over what is left of the overlap, flat where the tile ends with the photo."""
    to_near_edge = np.arange(size_px) + 0.5
    to_far_edge = to_near_edge[::-1]
    distance_px = np.full(size_px, np.inf)
    if start > 0:
        distance_px = np.minimum(distance_px, to_near_edge)
    if start + size_px < length_px:
        distance_px = np.minimum(distance_px, to_far_edge)
    distance_px = distance_px - plan.margin_px
    ramp_px = plan.overlap_px - 2 * plan.margin_px
    if ramp_px == 0:
        return (distance_px > 0).astype(np.float64)
    ramp: np.ndarray = np.sin(np.clip(distance_px / ramp_px, 0.0, 1.0) * (np.pi / 2)) ** 2
    return ramp


def _expect_size(samples: np.ndarray, plan: TilePlan) -> None:
    if samples.ndim != 3 or samples.shape[:2] != (plan.height_px, plan.width_px):
        expected = f"({plan.height_px}, {plan.width_px}, channels)"
        raise InvalidOption(f"samples of shape {samples.shape} do not fit the plan, which expects {expected}")
