"""Photos to overlapping tiles and back.

Where tiles overlap their weights are raised cosines, normalised along each axis so that they sum to 1 at every pixel
that counts. A pixel's weights are then known without a weight accumulator, and a photo can be blended band by band.

    plan_tiles           all over a photo, on a grid
    plan_tiles_over      over what a mask covers, as few as will do
    plan_tiles_around    over what a mask covers, in the middle of tiles, wherever it lies

Of a network that looks no farther than a tile's margin, what lies inside the margin does not depend on where the tile
lies, if tiles are moved by whole cells of the network: `margin_px` and `cell_px`. So these tiles may lie wherever they
cover most. A network that looks farther is given tiles that follow the mask: then what it answers depends on the mask,
and on no grid.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

JOIN_PX = 32
"""Parts of a mask that are no farther apart are one area, which is not divided between tiles if it fits into one."""


@dataclass(frozen=True, eq=False)
class Span:
    """A tile along one axis: where it starts, and what share of each coordinate's value is its own.

    weights: (tile_px,) float32 in [0, 1], shorter where the tile reaches beyond the photo.
    """

    start: int
    weights: np.ndarray

    @cached_property
    def share(self) -> slice:
        """The part of the tile that has any share of its coordinates."""
        first, last = np.flatnonzero(self.weights)[[0, -1]].tolist()
        return slice(first, last + 1)

    @cached_property
    def is_alone(self) -> bool:
        """Whether it has all of what it has a share of."""
        return bool((self.weights[self.share] == 1.0).all())

    def counting(self) -> slice:
        """The coordinates of which it has any share."""
        return slice(self.start + self.share.start, self.start + self.share.stop)


@dataclass(frozen=True, eq=False)
class TileRow:
    """Tiles side by side."""

    rows: Span
    columns: tuple[Span, ...]


@dataclass(frozen=True, eq=False)
class TilePlan:
    """Where the tiles of a photo lie, from top to bottom."""

    height_px: int
    width_px: int
    tile_px: int
    tile_rows: tuple[TileRow, ...]

    def __len__(self) -> int:
        return sum(len(row.columns) for row in self.tile_rows)

    def corners(self) -> Iterator[tuple[int, int]]:
        """The (top, left) of every tile, in the order in which tiles are cut and blended."""
        return ((row.rows.start, column.start) for row in self.tile_rows for column in row.columns)

    def halved(self) -> "TilePlan":
        """The same tiles on a copy of half the side, to cut them there; its weights are not to be blended with.

        Raises ValueError if a tile starts, or ends, between two samples of the copy.
        """
        if self.tile_px % 2 or any(start % 2 for corner in self.corners() for start in corner):
            raise ValueError(f"tiles of {self.tile_px} px do not start and end at even coordinates; use even cells")

        def halve(span: Span) -> Span:
            return Span(span.start // 2, span.weights[::2])

        tile_rows = tuple(TileRow(halve(row.rows), tuple(map(halve, row.columns))) for row in self.tile_rows)
        return TilePlan(-(-self.height_px // 2), -(-self.width_px // 2), self.tile_px // 2, tile_rows)

    def touching(self, mask: np.ndarray) -> "TilePlan":
        """Without the tiles of which nothing that counts lies under the mask, (H, W) bool."""
        tile_rows = []
        for row in self.tile_rows:
            is_set = np.logical_or.reduce(mask[row.rows.counting()], axis=0)
            if columns := tuple(column for column in row.columns if is_set[column.counting()].any()):
                tile_rows.append(TileRow(row.rows, columns))
        return TilePlan(self.height_px, self.width_px, self.tile_px, tuple(tile_rows))


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
    first row and column stay at the near edge), to compare the results of two grids. Raises ValueError for sizes
    that make no grid.
    """
    if min(height_px, width_px, tile_px, cell_px) < 1:
        raise ValueError(
            f"a {height_px} x {width_px} photo in tiles of {tile_px} px, cells of {cell_px} px: every size must be at "
            "least 1"
        )
    _expect_overlap(tile_px, overlap_px, margin_px)
    stride_px = tile_px - overlap_px
    if any(extent % cell_px for extent in (tile_px, stride_px, offset_px)):
        raise ValueError(
            f"tile, stride and offset are {tile_px}, {stride_px} and {offset_px} px, not multiples of "
            f"the cell's {cell_px}"
        )

    def lay(length_px: int) -> list[Span]:
        starts = _starts(length_px, tile_px, stride_px, cell_px, offset_px)
        return _share_out(length_px, starts, tile_px, overlap_px, margin_px)

    columns = tuple(lay(width_px))
    return TilePlan(height_px, width_px, tile_px, tuple(TileRow(rows, columns) for rows in lay(height_px)))


def plan_tiles_over(
    mask: np.ndarray, *, tile_px: int = 256, margin_px: int = 64, cell_px: int = 32, offset_px: int = 0
) -> TilePlan:
    """Lay as few tiles over what is set of a mask, (H, W) bool, as rows of tiles, and the tiles of each, will do with.

    Every tile starts at a multiple of `cell_px`, and nothing within `margin_px` of its edge is used, except at the
    photo's own: so a network that looks no farther answers as it would on the grid of `plan_tiles`. What is used of
    two tiles does not overlap. `offset_px` moves tiles by up to what is used of one to the top and to the left, to
    compare results. Raises ValueError for sizes that make no plan.
    """
    _expect_overlap(tile_px, 2 * margin_px, margin_px)
    if tile_px % cell_px or margin_px % cell_px or offset_px % cell_px:
        raise ValueError(
            f"tile, margin and offset are {tile_px}, {margin_px} and {offset_px} px, not multiples of the cell's "
            f"{cell_px}"
        )

    def lay(is_set: np.ndarray) -> Iterator[Span]:
        back_px = margin_px + offset_px % (tile_px - 2 * margin_px)
        return _spans_covering(is_set, tile_px, margin_px, cell_px, back_px)

    return _plan_in_rows(mask, tile_px, lay)


def plan_tiles_around(mask: np.ndarray, *, tile_px: int = 256, overlap_px: int = 128, margin_px: int = 32) -> TilePlan:
    """Lay tiles over what is set of a mask, (H, W) bool: rows of tiles first, then the tiles of each row.

    An area that fits into a tile with `margin_px` around it is given to a single one along that axis, in its middle as
    far as the photo's edges allow; several that lie close together share one. A longer area is divided between tiles
    that overlap by at least `overlap_px`, of which nothing within `margin_px` of an edge is used. The weights sum to 1
    where the mask is set; elsewhere they may not. Raises ValueError for sizes that make no plan.
    """
    _expect_overlap(tile_px, overlap_px, margin_px)

    def lay(is_set: np.ndarray) -> list[Span]:
        return [
            span
            for first, end in _areas(is_set, tile_px, margin_px)
            for span in _spans_over(first, end, len(is_set), tile_px, overlap_px, margin_px)
        ]

    return _plan_in_rows(mask, tile_px, lay)


def _plan_in_rows(mask: np.ndarray, tile_px: int, lay: Callable[[np.ndarray], Iterable[Span]]) -> TilePlan:
    """Rows of tiles over what is set of a mask, (H, W) bool, and tiles over what is set of each row. lay: over (L,)
    bool."""
    tile_rows = []
    for rows in lay(np.logical_or.reduce(mask, axis=1)):
        tile_rows.append(TileRow(rows, tuple(lay(np.logical_or.reduce(mask[rows.counting()], axis=0)))))
    return TilePlan(mask.shape[0], mask.shape[1], tile_px, tuple(tile_rows))


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
    plan: TilePlan, tiles: Iterable[np.ndarray], *, num_channels: int = 3
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Blend tiles, in the order of `cut_tiles`, into bands: rows, and of these the columns from the first to the last
    of which a tile has any share.

    tiles: (tile_px, tile_px, num_channels) float. Yields ((rows, columns), band) as soon as rows are final, band (rows,
    columns, num_channels) float32, from top to bottom; no row twice, and every row of which a tile has any share. What
    has no weight is not looked at. Memory is what counts of one row of tiles.
    """
    remaining = iter(tiles)
    rows_of = [row.rows.counting() for row in plan.tile_rows]
    tops = [*(rows.start for rows in rows_of), plan.height_px]
    pending, pending_columns = np.zeros((0, 0, num_channels), np.float32), slice(0, 0)
    for row, rows, next_top in zip(plan.tile_rows, rows_of, tops[1:], strict=True):
        shared, shared_columns = pending, pending_columns  # with this row of tiles
        counting = [column.counting() for column in row.columns]
        extents = [*counting, *([shared_columns] if len(shared) else [])]
        left, right = min(extent.start for extent in extents), max(extent.stop for extent in extents)
        band = np.zeros((rows.stop - rows.start, right - left, num_channels), np.float32)
        if len(shared):
            band[: len(shared), shared_columns.start - left : shared_columns.stop - left] = shared
        for column, columns in zip(row.columns, counting, strict=True):
            _add_tile(band[:, columns.start - left : columns.stop - left], next(remaining), row.rows, column)
        num_final = min(next_top, rows.stop) - rows.start
        if num_final:
            yield (slice(rows.start, rows.start + num_final), slice(left, right)), band[:num_final]
        pending, pending_columns = band[num_final:], slice(left, right)


def _add_tile(area: np.ndarray, tile: np.ndarray, row: Span, column: Span) -> None:
    """area: of what the tile has a share of."""
    part = tile[row.share, column.share]
    if not row.is_alone:
        part = part * row.weights[row.share, None, None]
    if not column.is_alone:
        part = part * column.weights[column.share, None]
    torch.from_numpy(area).add_(torch.from_numpy(part))  # numpy takes 2 to 4 times as long


# --- along one axis ---------------------------------------------------------------------------------------------------


def _starts(length_px: int, tile_px: int, stride_px: int, cell_px: int, offset_px: int) -> tuple[int, ...]:
    last = _last_start(length_px, tile_px, cell_px)
    return tuple(sorted({0, *range(offset_px % stride_px, last, stride_px), last}))


def _last_start(length_px: int, tile_px: int, cell_px: int) -> int:
    """Of the tile that reaches the far edge, or less than a cell beyond it."""
    return max(0, -(-(length_px - tile_px) // cell_px) * cell_px)


def _spans_covering(is_set: np.ndarray, tile_px: int, margin_px: int, cell_px: int, back_px: int) -> Iterator[Span]:
    """Over what is set of (L,) bool: each begins at most `back_px` and a cell before the first that is left."""
    last_px = _last_start(len(is_set), tile_px, cell_px)
    coordinates = np.flatnonzero(is_set)
    covered_px = 0
    while len(left := coordinates[np.searchsorted(coordinates, covered_px) :]):
        start = min(max(0, (int(left[0]) - back_px) // cell_px * cell_px), last_px)
        first = max(start + margin_px if start else 0, covered_px)
        covered_px = len(is_set) if start == last_px else start + tile_px - margin_px
        weights = np.zeros(min(tile_px, len(is_set) - start), np.float32)
        weights[first - start : covered_px - start] = 1.0
        yield Span(start, weights)


def _areas(is_set: np.ndarray, tile_px: int, margin_px: int) -> list[tuple[int, int]]:
    """The (first, end) of each area of (L,) bool that gets tiles of its own."""
    coordinates = np.flatnonzero(is_set)
    if not len(coordinates):
        return []
    gaps = np.flatnonzero(np.diff(coordinates) > JOIN_PX)
    firsts, ends = coordinates[np.r_[0, gaps + 1]], coordinates[np.r_[gaps, -1]] + 1
    areas: list[tuple[int, int]] = []
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        if areas and _extent(areas[-1][0], end, len(is_set), margin_px) <= tile_px:
            first, _ = areas.pop()
        areas.append((first, end))
    return areas


def _extent(first: int, end: int, length_px: int, margin_px: int) -> int:
    """Of an area with its margins, as far as the photo has any."""
    return min(end + margin_px, length_px) - max(first - margin_px, 0)


def _spans_over(first: int, end: int, length_px: int, tile_px: int, overlap_px: int, margin_px: int) -> Iterator[Span]:
    """The tiles of one area, whose weights are 0 outside it."""
    extent_px = max(tile_px, _extent(first, end, length_px, margin_px))
    num_tiles = 1 + max(0, -(-(extent_px - tile_px) // (tile_px - overlap_px)))
    origin = max(0, min((first + end - extent_px) // 2, length_px - extent_px))
    starts = np.linspace(0, extent_px - tile_px, num_tiles).round().astype(int).tolist()
    for span in _share_out(extent_px, starts, tile_px, overlap_px, margin_px):
        start = origin + span.start
        weights = span.weights[: length_px - start].copy()
        weights[: max(0, first - start)] = 0.0
        weights[max(0, end - start) :] = 0.0
        yield Span(start, weights)


def _share_out(length_px: int, starts: Iterable[int], tile_px: int, overlap_px: int, margin_px: int) -> list[Span]:
    """Tiles that together cover a length; where they overlap, their weights sum to 1."""
    total = np.zeros(length_px)
    raw = []
    for start in starts:
        window = _raised_cosine(start, min(length_px - start, tile_px), length_px, overlap_px, margin_px)
        total[start : start + len(window)] += window
        raw.append((start, window))
    return [Span(start, (window / total[start : start + len(window)]).astype(np.float32)) for start, window in raw]


def _raised_cosine(start: int, size_px: int, length_px: int, overlap_px: int, margin_px: int) -> np.ndarray:
    """0 in the margins, sin² ramps over what is left of the overlap, flat where the tile ends with the length."""
    to_near_edge = np.arange(size_px) + 0.5
    to_far_edge = to_near_edge[::-1]
    distance_px = np.full(size_px, np.inf)
    if start > 0:
        distance_px = np.minimum(distance_px, to_near_edge)
    if start + size_px < length_px:
        distance_px = np.minimum(distance_px, to_far_edge)
    distance_px = distance_px - margin_px
    ramp_px = overlap_px - 2 * margin_px
    if ramp_px == 0:
        return (distance_px > 0).astype(np.float64)
    ramp: np.ndarray = np.sin(np.clip(distance_px / ramp_px, 0.0, 1.0) * (np.pi / 2)) ** 2
    return ramp


def _expect_overlap(tile_px: int, overlap_px: int, margin_px: int) -> None:
    if not 0 <= overlap_px < tile_px:
        raise ValueError(f"overlap_px is {overlap_px}, expected at least 0 and less than the tile's {tile_px}")
    if not 0 <= 2 * margin_px <= overlap_px:
        raise ValueError(f"margin_px is {margin_px}, expected at least 0 and at most half the overlap's {overlap_px}")


def _expect_size(samples: np.ndarray, plan: TilePlan) -> None:
    if samples.ndim != 3 or samples.shape[:2] != (plan.height_px, plan.width_px):
        expected = f"({plan.height_px}, {plan.width_px}, channels)"
        raise ValueError(f"samples of shape {samples.shape} do not fit the plan, which expects {expected}")
