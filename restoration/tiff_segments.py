"""A TIFF page's strips and tiles: where they lie, and samples encoded as one of them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Literal, NamedTuple

import imagecodecs
import numpy as np

from restoration.photo_colours import Samples

DEFLATE, HORIZONTAL = 8, 2
"""The numbers of a compression and of a predictor."""

_ENCODERS: Mapping[int, Callable[[bytes], bytes | bytearray]] = MappingProxyType(
    {
        1: bytes,
        5: imagecodecs.lzw_encode,
        DEFLATE: imagecodecs.zlib_encode,
        32946: imagecodecs.zlib_encode,
        34925: imagecodecs.lzma_encode,
        50000: imagecodecs.zstd_encode,
    }
)
_DENSER: Mapping[int, Callable[[bytes], bytes | bytearray]] = MappingProxyType(
    dict.fromkeys((DEFLATE, 32946), partial(imagecodecs.deflate_encode, level=10))
)
"""A few per cent less for up to four times as long (measured on 8 and 16 bits). LZW has no such choice, and that of
Zstandard and LZMA takes too long for what it saves."""
_PACKBITS = 32773
LOSSLESS = frozenset((*_ENCODERS, _PACKBITS))
"""Compressions in which a segment can be written, so that all others stay as they are."""
WITH_PREDICTOR = frozenset(_ENCODERS) - {1}
"""Those of them in which libtiff knows a predictor, of 8 or 16 bits."""


class Scheme(NamedTuple):
    """How samples become bytes. compression, predictor: TIFF's numbers; order: of a sample's bytes."""

    compression: int
    predictor: int
    num_bits: int
    order: Literal["<", ">"]


class Segmentation(NamedTuple):
    """How a page is cut: into strips, as wide as it is, or tiles; is_planar: one channel in each."""

    height_px: int
    width_px: int
    num_channels: int
    segment_height_px: int
    segment_width_px: int
    is_tiled: bool
    is_planar: bool

    @property
    def num_segments(self) -> int:
        across, down = -(-self.width_px // self.segment_width_px), -(-self.height_px // self.segment_height_px)
        return across * down * (self.num_channels if self.is_planar else 1)

    def boxes(self) -> Iterator[tuple[slice, slice, slice]]:
        """Rows, columns and channels of segment after segment, in the order of the file, cut at the page's edges."""
        planes = [slice(at, at + 1) for at in range(self.num_channels)] if self.is_planar else [slice(None)]
        for plane in planes:
            for top in range(0, self.height_px, self.segment_height_px):
                rows = slice(top, min(top + self.segment_height_px, self.height_px))
                for left in range(0, self.width_px, self.segment_width_px):
                    yield rows, slice(left, min(left + self.segment_width_px, self.width_px)), plane

    def pad(self, samples: Samples) -> Samples:
        """A tile at an edge is stored whole; a strip ends with the page."""
        if not self.is_tiled:
            return samples
        missing = self.segment_height_px - samples.shape[0], self.segment_width_px - samples.shape[1]
        return _repeat_edges(samples, *missing)


def _repeat_edges(samples: Samples, num_rows: int, num_columns: int) -> Samples:
    """(H, W, C) with its last row and column repeated."""
    height, width = samples.shape[:2]
    rows = np.minimum(np.arange(height + num_rows), height - 1)
    columns = np.minimum(np.arange(width + num_columns), width - 1)
    padded: Samples = samples[rows[:, None], columns]
    return padded


def encode_segment(samples: Samples, scheme: Scheme, room_bytes: float = inf) -> bytes:
    """samples: (H, W, C) uint8 or uint16, or (H, W, 1) uint8 of fewer bits. Where `room_bytes` are too few, a denser
    encoding of the same compression is tried."""
    if scheme.num_bits < 8:
        packed = imagecodecs.packints_encode(
            np.ascontiguousarray(samples[:, :, 0]), scheme.num_bits, runlen=samples.shape[1]
        )
        rows = np.frombuffer(packed, np.uint8).reshape(samples.shape[0], -1)
    else:
        if scheme.predictor == HORIZONTAL:
            differences = samples.copy()
            differences[:, 1:] -= samples[:, :-1]  # modulo the range
            samples = differences
        stored = np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder(scheme.order), copy=False))
        rows = stored.reshape(samples.shape[0], -1).view(np.uint8)
    if scheme.compression == _PACKBITS:  # by rows (TIFF 6.0, section 9)
        return b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in rows)
    encoded = _ENCODERS[scheme.compression](rows.tobytes())
    if len(encoded) > room_bytes and (encode_denser := _DENSER.get(scheme.compression)):
        encoded = encode_denser(rows.tobytes())
    return bytes(encoded)
