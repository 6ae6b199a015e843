"""One file through everything that reads and writes photos: nothing but a PhotoError may come of it."""

import logging
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from restoration.errors import PhotoError
from restoration.photo import History, Photo, PhotoLimits, decode_photo, encode_photo
from tests.restoration import odd_photos
from tests.restoration.odd_photos import ODD_PHOTOS

LIMITS = PhotoLimits(max_pixels=1 << 18, max_side_px=2048, max_pages=4)
HISTORY = History("0007", 0.0125)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def exercise(encoded: bytes) -> None:
    """Decode, damage a corner of every page, encode, decode again; raises whatever is a fault of ours."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it reports what it finds in damaged files
    try:
        photo = decode_photo(encoded, LIMITS)
    except PhotoError:
        return
    painted = [paint_corner(page) for page in photo.pages]
    again = decode_photo(encode_photo(photo, painted[0], further_pages=painted[1:], history=HISTORY), LIMITS)
    assert [page.samples.shape for page in again.pages] == [samples.shape for samples in painted]
    if photo.format != "jpeg":
        for page, samples in zip(again.pages, painted, strict=True):
            np.testing.assert_array_equal(page.samples, samples)


def paint_corner(page: Photo) -> np.ndarray:
    mask = np.zeros((page.height_px, page.width_px), bool)
    mask[:3, :3] = True
    return page.with_colour(np.full((*mask.shape, 3), (210, 60, 30), np.uint8), mask)


def small_photos() -> Iterator[bytes]:
    """The odd photos, of a twentieth of their size."""
    for name in ("RGB", "GREY", "ALPHA", "DEEP_RGB", "DEEP_GREY", "DEEP_ALPHA", "INKS", "BLACK_AND_WHITE"):
        setattr(odd_photos, name, getattr(odd_photos, name)[:19, :27].copy())
    for odd in ODD_PHOTOS:
        yield odd.make()


def with_true_checksums(encoded: bytes) -> bytes:
    """A PNG whose chunks' checksums hold as far as its chunks lead; anything else as it is."""
    if not encoded.startswith(PNG_SIGNATURE):
        return encoded
    repaired, at = bytearray(encoded), len(PNG_SIGNATURE)
    while at + 12 <= len(repaired):
        (num_bytes,) = struct.unpack_from(">L", repaired, at)
        end = at + 8 + num_bytes
        if end + 4 > len(repaired):
            break
        struct.pack_into(">L", repaired, end, zlib.crc32(repaired[at + 4 : end]))
        at = end + 4
    return bytes(repaired)
