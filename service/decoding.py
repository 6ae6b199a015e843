"""From an upload to a photo and the options of its restoring; to be called from threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from restoration.errors import InvalidOption, PhotoError
from restoration.photo import Photo
from restoration.restorer import RestoreOptions, expect_mask_size
from service.answers import RestoreQuery, check_answer
from service.codecs import Codec
from service.uploads import Upload

MASK_THRESHOLD = 128
"""A mask's pixel counts when any of its colours is at least this bright."""


def measure_upload(codec: Codec, upload: Upload) -> int:
    """Pixels of the photo, all pages together, by its header; nothing is decoded. Its masks must have its size.

    Raises PhotoError for the photo, InvalidOption for a mask, CodecUnavailable.
    """
    num_pixels = codec.count_pixels(upload.image)
    fields = {"damage": upload.damage, "protect": upload.protect}
    if masks := {field: encoded for field, encoded in fields.items() if encoded is not None}:
        photo_px = codec.measure(upload.image)
        for field, encoded in masks.items():
            expect_mask(codec, field, encoded, photo_px)
    return num_pixels


def expect_mask(codec: Codec, field: str, encoded: bytes, photo_px: tuple[int, int]) -> None:
    """photo_px: height and width. Raises InvalidOption for what is no mask of that size, and CodecUnavailable."""
    with _naming(field):
        height_px, width_px = mask_px = codec.measure(encoded)
        has_further_pages = codec.count_pixels(encoded) > height_px * width_px
    expect_mask_size(field, mask_px, photo_px)
    if has_further_pages:
        raise InvalidOption(f"the field {field!r} is no mask: it has several pages; send the one that is meant")


def decode_upload(codec: Codec, upload: Upload, query: RestoreQuery, num_pixels: int) -> tuple[Photo, RestoreOptions]:
    """Raises PhotoError for the photo, InvalidOption for a mask or for an answer that the photo cannot be had in,
    CodecUnavailable."""
    photo = codec.decode(upload.image, num_pixels)
    check_answer(query, photo)
    options = RestoreOptions(
        mode=query.mode,
        sensitivity=query.sensitivity,
        denoise=query.denoise,
        damage=decode_mask(codec, "damage", upload.damage, num_pixels),
        protect=decode_mask(codec, "protect", upload.protect, num_pixels),
    )
    return photo, options


def decode_mask(codec: Codec, field: str, encoded: bytes | None, num_pixels: int) -> np.ndarray | None:
    """(H, W) bool, True where the mask is bright; None without one. Raises InvalidOption naming the field, and
    CodecUnavailable."""
    if encoded is None:
        return None
    with _naming(field):
        mask = codec.decode(encoded, num_pixels)
    is_marked: np.ndarray = mask.colour().max(axis=2) >= MASK_THRESHOLD
    return is_marked


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """What is wrong with a mask is not wrong with the photo."""
    try:
        yield
    except PhotoError as error:
        raise InvalidOption(f"the field {field!r} is no mask: {error}") from error
