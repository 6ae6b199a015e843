"""The DCT coefficients of a JPEG: read, replaced where samples have changed, written; none of the others is touched.

By jpeglib's two calls on coefficients, made here on our own arrays: its Python classes copy every array, leave
temporary files behind on errors, decode the picture besides, and count markers in memory that threads share. Baseline
files are written by its libjpeg-turbo; progressive ones by its mozjpeg, which its writing of coefficients makes so.
"""

import ctypes
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jpeglib._bind import CJpegLib
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from restoration.errors import PhotoUndecodable
from restoration.jpeg_scans import join_components

BLOCK_PX = 8
_LIBRARY = "turbo210"
_LIBRARY_PROGRESSIVE = "mozjpeg403"
_NUM_PLANES, _MOST_WRITTEN = 4, 3  # what jpeglib's calls have room for, and how many of them it writes
_MAX_COEFFICIENT = 1023  # of 8-bit samples; ITU-T T.81, table F.2
_KEEP_QUALITY = ctypes.c_short(-1)

Coefficients: TypeAlias = NDArray[np.int16]
ColourSpace: TypeAlias = Literal["grey", "RGB", "YCbCr", "CMYK", "YCCK"]
_LIBJPEG_COLOUR_SPACES: dict[ColourSpace, int] = {"grey": 1, "RGB": 2, "YCbCr": 3}


class Component(NamedTuple):
    """Sampling factors, and 64 divisors in natural order."""

    horizontal: int
    vertical: int
    quantisation_table: tuple[int, ...]


class Layout(NamedTuple):
    """How a JPEG's samples become coefficients."""

    height_px: int
    width_px: int
    components: tuple[Component, ...]
    colour_space: ColourSpace
    is_progressive: bool

    @property
    def most_horizontal(self) -> int:
        return max(component.horizontal for component in self.components)

    @property
    def most_vertical(self) -> int:
        return max(component.vertical for component in self.components)

    @property
    def is_whole(self) -> bool:
        """Whether each sample of each component covers a whole number of pixels."""
        return all(
            self.most_horizontal % component.horizontal == 0 and self.most_vertical % component.vertical == 0
            for component in self.components
        )


def replace_samples(
    encoded: bytes, layout: Layout, before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> bytes | None:
    """`encoded` with the blocks in which `after` differs from `before`, (H, W, C) uint8 each, transformed anew.
    Of the result, what is no coefficient is libjpeg's: its header, its Huffman tables. layout.is_whole must hold.
    None if the file holds coefficients that JPEG has no code for, or four components in an odd frame: it is damaged,
    and decodes all the same.

    Raises PhotoUndecodable if the coefficients can't be read, OSError if there is no room for temporary files."""
    with _temporary_file() as source, _temporary_file() as target:
        source.write_bytes(encoded)
        planes = _read(source, layout)
        if any(plane.min() < -_MAX_COEFFICIENT - 1 or plane.max() > _MAX_COEFFICIENT for plane in planes):
            return None
        for top in range(0, layout.height_px, BLOCK_PX * layout.most_vertical):
            _transform_row_of_units(planes, layout, before, after, top)
        if len(planes) > _MOST_WRITTEN:
            try:
                return join_components(encoded, [_write_grey(*each) for each in _as_grey(planes, layout)])
            except ValueError:
                return None
        _write(source, target, planes, layout)
        return target.read_bytes()


@contextmanager
def _temporary_file() -> Iterator[Path]:
    """On Linux in memory and without a name: it needs no disk, and no process that is killed leaves a photo there."""
    if sys.platform == "linux":
        with open(os.memfd_create("photo"), "rb") as file:
            yield Path(f"/proc/self/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile(prefix="photo-") as file:
            yield Path(file.name)


def _transform_row_of_units(
    planes: Sequence[Coefficients], layout: Layout, before: NDArray[np.uint8], after: NDArray[np.uint8], top: int
) -> None:
    """One row of the smallest units (MCU) that hold whole blocks of every component."""
    unit_height_px, unit_width_px = BLOCK_PX * layout.most_vertical, BLOCK_PX * layout.most_horizontal
    rows = slice(top, min(top + unit_height_px, layout.height_px))
    changed = np.asarray((before[rows] != after[rows]).any(axis=2))
    if not changed.any():
        return
    missing = ((0, unit_height_px - changed.shape[0]), (0, -changed.shape[1] % unit_width_px))
    changed_units = _cut(np.pad(changed, missing), unit_width_px)
    touched = np.flatnonzero(changed_units.any(axis=(1, 2)))
    samples = _cut(np.pad(after[rows], (*missing, (0, 0)), mode="edge"), unit_width_px)[touched]
    levels = _to_components(samples.astype(np.float32), layout.colour_space)
    for index, (plane, component) in enumerate(zip(planes, layout.components, strict=True)):
        coefficients = _transform(_downsample(levels[..., index], layout, component), component)
        is_changed = np.asarray(_blocks_of(changed_units[touched], component).any(axis=(-2, -1)))
        _place(plane, component, coefficients, is_changed, top // unit_height_px, touched)


def _place(
    plane: Coefficients,
    component: Component,
    coefficients: np.ndarray,
    is_changed: np.ndarray,
    row_of_units: int,
    units: np.ndarray,
) -> None:
    """coefficients: (N, blocks, 64), of N units of a row, which have the numbers `units`; is_changed: (N, blocks) bool.
    Units at the edges hold blocks that lie outside of the picture."""
    for block in range(component.vertical * component.horizontal):
        row, column = divmod(block, component.horizontal)
        at_row, at_columns = row_of_units * component.vertical + row, units * component.horizontal + column
        is_placed = is_changed[:, block] & (at_row < plane.shape[0]) & (at_columns < plane.shape[1])
        if is_placed.any():
            plane[at_row, at_columns[is_placed]] = coefficients[is_placed, block]


def _cut(band: np.ndarray, width_px: int) -> np.ndarray:
    """(H, N * W, ...) to (N, H, W, ...)."""
    return np.swapaxes(band.reshape(band.shape[0], -1, width_px, *band.shape[2:]), 0, 1)


def _blocks_of(units: np.ndarray, component: Component) -> np.ndarray:
    """(N, H, W) to (N, blocks, H / vertical, W / horizontal)."""
    num_units, height, width = units.shape
    vertical, horizontal = component.vertical, component.horizontal
    blocks: np.ndarray = units.reshape(num_units, vertical, height // vertical, horizontal, -1).swapaxes(2, 3)
    return blocks.reshape(num_units, vertical * horizontal, height // vertical, width // horizontal)


def _to_components(samples: np.ndarray, colour_space: ColourSpace) -> np.ndarray:
    """(..., C) float32 in [0, 255] to the components' levels, around 0. YCbCr: JFIF 1.02, page 3. Inks are stored
    inverted, as Adobe has them and Pillow reads them all; YCCK are inverted inks seen as RGB, and turned to YCbCr."""
    if colour_space == "YCCK":
        colours = _to_components(samples[..., :3], "YCbCr")
        return np.concatenate((colours, 127.0 - samples[..., 3:]), axis=-1)
    if colour_space == "CMYK":
        return 127.0 - samples
    if colour_space != "YCbCr":
        return samples - 128.0
    red, green, blue = (samples[..., channel] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack((luma - 128.0, (blue - luma) / 1.772, (red - luma) / 1.402), axis=-1)


def _downsample(levels: np.ndarray, layout: Layout, component: Component) -> np.ndarray:
    """(N, H, W) at full resolution to the component's, (N, blocks, 8, 8): the mean, as libjpeg has it."""
    down, across = layout.most_vertical // component.vertical, layout.most_horizontal // component.horizontal
    num_units, height, width = levels.shape
    means = levels.reshape(num_units, height // down, down, width // across, across).mean(axis=(2, 4))
    return _blocks_of(means, component)


def _transform(blocks: np.ndarray, component: Component) -> np.ndarray:
    """(N, blocks, 8, 8) to (N, blocks, 64) quantised coefficients, float32."""
    table = np.asarray(component.quantisation_table, np.float32).reshape(BLOCK_PX, BLOCK_PX)
    table = np.maximum(table, 1.0)  # a broken table may hold 0: whatever stands there is read as 0
    coefficients: np.ndarray = np.rint(dctn(blocks, axes=(-2, -1), norm="ortho") / table)
    return coefficients.reshape(*blocks.shape[:2], BLOCK_PX * BLOCK_PX)


def _read(source: Path, layout: Layout) -> list[Coefficients]:
    """One array a component, (rows of blocks, blocks in a row, 64) int16."""
    planes = [
        np.zeros(
            (
                -(-layout.height_px * component.vertical // (BLOCK_PX * layout.most_vertical)),
                -(-layout.width_px * component.horizontal // (BLOCK_PX * layout.most_horizontal)),
                BLOCK_PX * BLOCK_PX,
            ),
            np.int16,
        )
        for component in layout.components
    ]
    if not _library(_LIBRARY).read_jpeg_dct(bytes(source), *_pointers(planes), None, None):
        raise PhotoUndecodable("the JPEG's coefficients can't be read: it is damaged; send it again from the original")
    return planes


def _write(source: Path, target: Path, planes: Sequence[Coefficients], layout: Layout) -> None:
    """`source` with other coefficients; its tables and sampling come along, its metadata do not."""
    is_written = _library(_LIBRARY_PROGRESSIVE if layout.is_progressive else _LIBRARY).write_jpeg_dct(
        bytes(source),
        bytes(target),
        *_pointers(planes),
        (ctypes.c_int * 2)(layout.height_px, layout.width_px),
        None,  # blocks and sampling: as in the source
        None,
        _LIBJPEG_COLOUR_SPACES[layout.colour_space],
        len(planes),
        None,  # tables: as in the source
        _KEEP_QUALITY,
        None,
        0,  # no markers
        None,
        None,
        None,
        *CJpegLib.flags_to_mask(["+OPTIMIZE_CODING"]),
    )
    if not is_written:
        raise OSError(errno.ENOSPC, "a temporary file of the restored JPEG could not be written")


def _as_grey(planes: Sequence[Coefficients], layout: Layout) -> Iterator[tuple[Coefficients, Layout]]:
    """Each component as a grey picture of its own size."""
    for plane, component in zip(planes, layout.components, strict=True):
        height_px = -(-layout.height_px * component.vertical // layout.most_vertical)
        width_px = -(-layout.width_px * component.horizontal // layout.most_horizontal)
        alone = (component._replace(horizontal=1, vertical=1),)
        yield plane, Layout(height_px, width_px, alone, "grey", layout.is_progressive)


def _write_grey(plane: Coefficients, layout: Layout) -> bytes:
    """A JPEG of these coefficients. Its tables are any: coefficients are written as they are."""
    blank = io.BytesIO()
    Image.new("L", (layout.width_px, layout.height_px)).save(blank, "JPEG", progressive=layout.is_progressive)
    with _temporary_file() as source, _temporary_file() as target:
        source.write_bytes(blank.getvalue())
        _write(source, target, [plane], layout)
        return target.read_bytes()


def _pointers(planes: Sequence[Coefficients]) -> list[ctypes.c_void_p | None]:
    pointers = [plane.ctypes.data_as(ctypes.c_void_p) for plane in planes]
    return [*pointers, *[None] * (_NUM_PLANES - len(planes))]


@cache
def _library(version: str) -> ctypes.CDLL:
    library: ctypes.CDLL = CJpegLib._bind_lib(version=version)
    return library
