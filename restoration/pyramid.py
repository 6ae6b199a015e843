"""Coarse to fine: what is too wide for one pass is found and filled on smaller copies of the photo first.

A scratch on a 24-megapixel scan may be wider than the detector can see; on a copy of an eighth of the side it is a
line. So the photo is halved again and again, and the passes go from the smallest copy up to the photo itself:

    detect   each copy has its own map, and what is damage is decided on each. The detector of the finer one is told
             what was seen on the coarser, and what was decided there is carried on: of what is damage here, too,
             what is too wide or faint to be seen may be plain there.
    fill     what lies deep in damage is filled on the coarser copy; on the finer one a rim is left to fill, between
             what lies around the damage and what stands in it now.

The copies have a quarter, a sixteenth ... of the photo's pixels: one look at all of it costs 1.33 times the
native pass. What is suspect is looked at again, and so is as much of the copies as is told of there.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from restoration.passes import FilledBefore, Seen, TilePass
from restoration.photo_colours import to_8_bit, to_depth
from restoration.windows import boxes_of, copy_where, halve_mask, largest_within, least_within, opened

MIN_SIDE_PX = 128
"""The short side of the smallest copy is at least this."""
THICK_PX = 3
"""Damage that is thinner on a copy is left to the next finer one to find."""
CARRIED_LEVEL = 127
"""So certain is what a coarser map decided: damage to its edge where the finer one has evidence for it, and no proof by
itself, since it is less than the least of `masks.CERTAINTIES`."""
RIM_PX = 9
"""What lies deeper in damage than this, on a copy, is not filled anew on the next finer one."""
BAND_PX = 512
"""Photos are halved so many rows at a time."""


class PyramidPass:
    """A pass over a photo and its smaller copies.

    decide: a damage map, (h, w) uint8, to opacities of the same shape: 0 where nothing is to be repaired.
    """

    def __init__(self, one_pass: TilePass, decide: Callable[[np.ndarray], np.ndarray]) -> None:
        self._one_pass = one_pass
        self._decide = decide

    def detect(self, colour: np.ndarray) -> np.ndarray:
        """colour: (H, W, 3) uint8; returns the damage map, (H, W) uint8."""
        copies = copies_of(colour)
        maps = self._look_once(copies)
        self._one_pass.look_again([Seen(copy, damage_map) for copy, damage_map in zip(copies, maps, strict=True)])
        for damage_map, coarse_map in reversed(list(pairwise(maps))):  # coarse to fine
            self._carry_on(coarse_map, damage_map)
        return maps[0]

    def _look_once(self, copies: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The copies' maps, (h, w) uint8 each; the finer one is told of the coarser."""
        maps, told = [], None
        for index in reversed(range(len(copies))):
            damage_map, told = self._one_pass.look_once(copies[index], told, tells=index > 0)
            maps.append(damage_map)
        return maps[::-1]

    def _carry_on(self, coarse_map: np.ndarray, damage_map: np.ndarray) -> None:
        """Write into the map, (H, W) uint8, what was decided on the smaller copy, (h, w) uint8."""
        opacities = self._decide(coarse_map)
        if opacities.any():
            found = double(decided_parts(opacities), damage_map.shape)
            found[found < CARRIED_LEVEL // 2] = 0  # interpolated beyond the edge
            np.maximum(damage_map, found, out=damage_map)

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        """See `Pass.fill`. On the copies colours have 8 bits."""
        if not has_smaller_copy(colour):
            return self._one_pass.fill(colour, mask, see_through)
        coarse_mask = halve_mask(mask)
        deep = mask & (double(deep_parts(coarse_mask), mask.shape) > 127)
        if not deep.any():
            return self._one_pass.fill(colour, mask, see_through)
        halved = halve(colour)
        coarse = self.fill(halved, coarse_mask, ~halve_mask(mask & ~see_through))
        copy_where(coarse_mask, coarse, halved)  # outside the mask a fill means nothing
        before = FilledBefore(double_where(deep, halved, colour.dtype), deep)
        del halved, coarse, coarse_mask  # half of the photo's samples; what follows takes most
        return self._one_pass.fill(colour, mask & ~deep, see_through, before)


def copies_of(colour: np.ndarray) -> list[np.ndarray]:
    """The photo, (H, W, 3) uint8, and its smaller copies, each of half the side of the one before."""
    copies = [colour]
    while has_smaller_copy(copies[-1]):
        copies.append(halve(copies[-1]))
    return copies


def has_smaller_copy(colour: np.ndarray) -> bool:
    return bool(min(colour.shape[:2]) >= 2 * MIN_SIDE_PX)


def halve(colour: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 samples: (H, W, 3) uint8 or uint16 to (ceil(H / 2), ceil(W / 2), 3) uint8."""
    halved = np.empty((-(-colour.shape[0] // 2), -(-colour.shape[1] // 2), 3), np.uint8)
    for top in range(0, colour.shape[0], BAND_PX):
        band = Image.fromarray(np.ascontiguousarray(to_8_bit(colour[top : top + BAND_PX])))
        halved[top // 2 : (top + BAND_PX) // 2] = np.asarray(band.reduce(2))
    return halved


def double(coarse: np.ndarray, size_px: tuple[int, ...]) -> np.ndarray:
    """The inverse of `halve` as far as there is one: (h, w) uint8 to size_px, interpolated."""
    doubled = np.zeros(size_px, np.uint8)
    for rows, columns in boxes_of(largest_within(coarse, 1) > 0):
        box = (slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop))
        doubled[box] = _double_box(coarse, size_px, *box)
    return doubled


def double_where(where: np.ndarray, coarse: np.ndarray, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> np.ndarray:
    """where: (H, W) bool; coarse: (h, w, 3) uint8. Returns (H, W, 3) of `dtype`, the doubled coarse there, 0
    elsewhere."""
    doubled = np.zeros((*where.shape, 3), dtype)  # rows that are never written cost no memory
    for box in boxes_of(where):
        colours = to_depth(_double_box(coarse, where.shape, *box), dtype)
        np.copyto(doubled[box], colours, where=where[box][:, :, None])
    return doubled


def _double_box(coarse: np.ndarray, size_px: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
    """These rows and columns of the doubled coarse, (h, w) or (h, w, 3) uint8; rows start at a multiple of `BOX_PX`,
    columns at an even one.

    Samples are rounded after each direction, and which one Pillow begins with depends on the size. It shall not depend
    on the box: where bands of `BAND_PX` rows are less high than the coarse picture, rows are doubled first.
    """
    (height_px, width_px), band_top = size_px[:2], rows.start // BAND_PX * BAND_PX
    rows, columns = slice(rows.start, min(rows.stop, height_px)), slice(columns.start, min(columns.stop, width_px))
    first_row, first_column = (max(0, extent.start // 2 - 1) for extent in (rows, columns))
    shown = coarse[first_row : rows.stop // 2 + 2, first_column : columns.stop // 2 + 2]
    # the last coarse sample of an odd side stands for half of it
    top, bottom = (at / 2 - first_row for at in (rows.start, rows.stop))
    left, right = (at / 2 - first_column for at in (columns.start, columns.stop))

    def double_rows(picture: Image.Image) -> Image.Image:
        size = (picture.width, rows.stop - rows.start)
        return picture.resize(size, Image.Resampling.BILINEAR, (0.0, top, float(picture.width), bottom))

    def double_columns(picture: Image.Image) -> Image.Image:
        size = (columns.stop - columns.start, picture.height)
        return picture.resize(size, Image.Resampling.BILINEAR, (left, 0.0, right, float(picture.height)))

    picture = Image.fromarray(np.ascontiguousarray(shown))
    if min(BAND_PX, height_px - band_top) < len(coarse):
        return np.asarray(double_columns(double_rows(picture)))
    return np.asarray(double_rows(double_columns(picture)))


def decided_parts(opacities: np.ndarray) -> np.ndarray:
    """What the next finer copy is told of what was decided here: (h, w) uint8 each; 0 where it has nothing to say.

    What is to be repaired, but for specks and what is thin: the finer samples draw that more exactly (an opening).
    """
    return opened(np.where(opacities > 0, np.uint8(CARRIED_LEVEL), np.uint8(0)), THICK_PX // 2)


def deep_parts(mask: np.ndarray) -> np.ndarray:
    """mask: (h, w) bool; returns (h, w) uint8, 255 where everything within `RIM_PX` is set, else 0."""
    return least_within(mask, RIM_PX).view(np.uint8) * np.uint8(255)
