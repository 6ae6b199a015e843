"""What holds for any photo, any mask and any tags: found by Hypothesis, which shrinks what breaks it."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restoration.errors import PhotoError
from restoration.photo import PhotoLimits, decode_photo, encode_photo, measure_photo
from restoration.photo_tags import Tag, pack_tags, read_tags
from restoration.tiling import blend_tiles, cut_tiles, plan_tiles

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
LOSSLESS = ("PNG", "TIFF", "WEBP")
LIMITS = PhotoLimits(max_pixels=1_000_000, max_side_px=5_000)
few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def pictures(draw: Callable[..., int]) -> np.ndarray:
    """(H, W, 1 or 3) uint8."""
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 60)), draw(st.sampled_from([1, 3]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, np.uint8)


def encode(samples: np.ndarray, format: str) -> bytes:
    encoded = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples).save(encoded, format, **options)
    return encoded.getvalue()


@few
@given(pictures(), st.sampled_from(LOSSLESS), st.integers(0, 2**32))
def test_painting_under_a_mask_changes_no_other_sample(samples: np.ndarray, format: str, seed: int) -> None:
    photo = decode_photo(encode(samples, format))
    rng = np.random.default_rng(seed)
    mask = rng.random((photo.height_px, photo.width_px)) < rng.random()
    paint = rng.integers(0, 256, (photo.height_px, photo.width_px, 3), np.uint8)
    painted = photo.with_colour(paint, mask)
    written = decode_photo(encode_photo(photo, painted))
    assert np.array_equal(written.samples[~mask], photo.samples[~mask])
    assert np.array_equal(written.samples, painted)


@few
@given(pictures(), st.sampled_from(FORMATS))
def test_what_is_not_changed_comes_back_byte_for_byte(samples: np.ndarray, format: str) -> None:
    encoded = encode(samples, format)
    photo = decode_photo(encoded)
    assert encode_photo(photo, photo.samples.copy()) == encoded


@few
@given(st.integers(1, 200), st.integers(1, 200), st.integers(8, 64), st.floats(0, 0.9), st.integers(0, 50), st.data())
def test_cut_and_blended_tiles_give_any_picture_back(
    height_px: int, width_px: int, tile_px: int, overlap: float, offset_px: int, data: st.DataObject
) -> None:
    samples = np.random.default_rng(data.draw(st.integers(0, 2**32))).random((height_px, width_px, 1), np.float32)
    plan = plan_tiles(
        height_px=height_px, width_px=width_px, tile_px=tile_px, overlap_px=int(tile_px * overlap), offset_px=offset_px
    )
    bands = [band for _, band in blend_tiles(plan, cut_tiles(samples, plan), num_channels=1)]
    np.testing.assert_allclose(np.concatenate(bands), samples, atol=1e-4)


texts = st.binary(min_size=1, max_size=200).map(lambda data: Tag(2, data))
shorts = st.lists(st.integers(0, 65_535), min_size=1, max_size=9).map(
    lambda values: Tag(3, np.array(values, "<u2").tobytes())
)


@few
@given(st.dictionaries(st.integers(1, 33_000), texts | shorts, max_size=20))
def test_tags_come_back_as_they_were(tags: dict[int, Tag]) -> None:
    assert read_tags(pack_tags(tags)) == tags


@few
@given(st.binary(max_size=400), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b""]))
def test_any_bytes_for_tags_are_read_without_an_error(content: bytes, start: bytes) -> None:
    read_tags(start + content)


SEEDS = {format: encode(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3), format) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
@settings(few, max_examples=150)
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4), st.floats(0.5, 1))
def test_a_mutated_photo_is_decoded_or_refused_and_nothing_else(
    format: str, mutations: list[tuple[float, bytes]], kept: float
) -> None:
    """A corpus of mutations, the same in each run."""
    encoded = bytearray(SEEDS[format])
    for position, replacement in mutations:
        at = int(position * len(encoded))
        encoded[at : at + len(replacement)] = replacement
    mutated = bytes(encoded[: int(len(encoded) * kept) + 1])
    try:
        measure_photo(mutated, LIMITS)
        photo = decode_photo(mutated, LIMITS)
    except PhotoError:
        return
    assert photo.samples.flags.writeable is False
    encode_photo(photo, 255 - photo.samples)
