"""Samples from and to Pillow's pictures, where Pillow reads or writes the format."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from restoration.photo_colours import Bytes, bands_of

_BUFFER_LOCK = threading.Lock()


class Plain(NamedTuple):
    """What every format's writer is given. samples: (H, W, C) uint8 or uint16; mode: Pillow's name for their meaning,
    whatever their depth: L, LA, RGB, RGBA or CMYK."""

    samples: Bytes | np.ndarray
    mode: str


def read_samples(file: ImageFile.ImageFile) -> Bytes:
    """(H, W, C) uint8, as Pillow decodes them."""
    file.load()
    width_px, height_px = file.size
    samples = np.empty((height_px, width_px, len(file.getbands())), np.uint8)
    for rows in bands_of(height_px):
        band = np.asarray(file.crop((0, rows.start, width_px, rows.stop)))
        samples[rows] = band.reshape(samples[rows].shape)
    return samples


def to_picture(plain: Plain) -> Image.Image:
    """For 8 bits a channel."""
    samples = plain.samples[:, :, 0] if plain.samples.shape[2] == 1 else plain.samples
    height_px, width_px = samples.shape[:2]
    return Image.frombuffer(plain.mode, (width_px, height_px), np.ascontiguousarray(samples), "raw", plain.mode, 0, 1)


@contextmanager
def buffer_of(num_bytes: int) -> Iterator[None]:
    """Pillow writes with a buffer of so many bytes at least. It takes no such option but one for all threads."""
    with _BUFFER_LOCK:
        usual = ImageFile.MAXBLOCK
        ImageFile.MAXBLOCK = max(usual, num_bytes)
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = usual
