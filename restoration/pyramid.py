"""Coarse to fine: what is too wide for one pass is found and filled on smaller copies of the photo first.

A scratch on a 24-megapixel scan may be wider than the detector can see; on a copy of an eighth of the side it is a
line. So the photo is halved again and again, and the passes go from the smallest copy up to the photo itself:

    detect   each copy has its own map. Of a coarser one only the inside of what is wide is carried on; its edge is
             drawn by the finer samples, or it would be off by a coarse pixel's worth of fine ones.
    fill     what is wide is filled on the coarser copy, and stands in the damage's place when the finer one is filled.

The copies have a quarter, a sixteenth ... of the photo's pixels: all of it costs 1.33 times the native pass.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage

from restoration.passes import Pass

MIN_SIDE_PX = 128
"""The short side of the smallest copy is at least this."""
WIDE_PX = 13
"""What is at least so wide on a copy counts as wide: on the next finer one it is twice that."""
EDGE_PX = 2
"""The inside of something wide begins so far from its edge."""
CERTAIN = 128
"""The level from which on a coarser map is carried on."""
BAND_PX = 512
"""Photos are halved and doubled so many rows at a time."""


class PyramidPass:
    """A pass over a photo and its smaller copies."""

    def __init__(self, one_pass: Pass) -> None:
        self._one_pass = one_pass

    def detect(self, colour: np.ndarray) -> np.ndarray:
        """colour: (H, W, 3) uint8; returns the damage map, (H, W) uint8."""
        damage_map = self._one_pass.detect(colour)
        if has_smaller_copy(colour):
            inside = inside_of_wide(self.detect(halve(colour)))
            np.maximum(damage_map, double(inside, colour.shape[:2]), out=damage_map)
        return damage_map

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        """See `Pass.fill`."""
        if has_smaller_copy(colour):
            coarse_mask = halve_mask(mask)
            wide = mask & (double(wide_parts(coarse_mask), mask.shape) > 0)
            if wide.any():
                halved = halve(colour)
                coarse = self.fill(halved, coarse_mask, ~halve_mask(mask & ~see_through))
                np.copyto(halved, coarse, where=coarse_mask[:, :, None])  # outside the mask a fill means nothing
                colour = put_in(halved, wide, colour)
                see_through = see_through | wide
        return self._one_pass.fill(colour, mask, see_through)


def has_smaller_copy(colour: np.ndarray) -> bool:
    return bool(min(colour.shape[:2]) >= 2 * MIN_SIDE_PX)


def halve(colour: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 samples: (H, W, 3) uint8 to (ceil(H / 2), ceil(W / 2), 3) uint8."""
    halved = np.empty((-(-colour.shape[0] // 2), -(-colour.shape[1] // 2), 3), np.uint8)
    for top in range(0, colour.shape[0], BAND_PX):
        band = Image.fromarray(np.ascontiguousarray(colour[top : top + BAND_PX]))
        halved[top // 2 : (top + BAND_PX) // 2] = np.asarray(band.reduce(2))
    return halved


def halve_mask(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool to (ceil(H / 2), ceil(W / 2)) bool, set where any of the 2 x 2 is."""
    for axis in (0, 1):
        mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], 2), axis=axis)
    return mask


def double(coarse: np.ndarray, size_px: tuple[int, ...]) -> np.ndarray:
    """The inverse of `halve` as far as there is one: (h, w) uint8 to size_px, interpolated."""
    doubled = np.empty(size_px, np.uint8)
    for top, band in _doubled_bands(coarse, size_px):
        doubled[top : top + len(band)] = band
    return doubled


def put_in(coarse: np.ndarray, wide: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """A copy of colour, (H, W, 3) uint8, with the doubled coarse (h, w, 3) where wide, (H, W) bool, is set."""
    composed = colour.copy()
    for top, band in _doubled_bands(coarse, wide.shape):
        rows = slice(top, top + len(band))
        np.copyto(composed[rows], band, where=wide[rows, :, None])
    return composed


def _doubled_bands(coarse: np.ndarray, size_px: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
    """By bands of rows: Pillow keeps four bytes for each pixel in colour."""
    height_px, width_px = size_px
    image = Image.fromarray(coarse)
    for top in range(0, height_px, BAND_PX):
        bottom = min(top + BAND_PX, height_px)
        box = (0.0, top / 2, width_px / 2, bottom / 2)  # the last coarse sample of an odd side stands for half of it
        yield top, np.asarray(image.resize((width_px, bottom - top), Image.Resampling.BILINEAR, box))


def inside_of_wide(damage_map: np.ndarray) -> np.ndarray:
    """What of the map, (h, w) uint8, is rather damage than not and wide, `EDGE_PX` from the edge; 0 elsewhere.

    A grey-scale opening. What is faint is left to the finer map: a coarse map's floor is wide as well.
    """
    certain = np.where(damage_map >= CERTAIN, damage_map, np.uint8(0))
    inside: np.ndarray = ndimage.maximum_filter(ndimage.minimum_filter(certain, WIDE_PX), WIDE_PX - 2 * EDGE_PX)
    return inside


def wide_parts(mask: np.ndarray) -> np.ndarray:
    """mask: (h, w) bool; returns (h, w) uint8, 255 where it is wide, its edge included, else 0."""
    eroded = ndimage.minimum_filter(mask.astype(np.uint8) * np.uint8(255), WIDE_PX)
    wide: np.ndarray = ndimage.maximum_filter(eroded, WIDE_PX + 2 * EDGE_PX)
    return wide
