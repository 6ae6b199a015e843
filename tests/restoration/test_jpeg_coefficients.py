"""Blocks without damage, coefficient by coefficient; `test_formats.py` has whole files of every kind."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restoration.jpeg_coefficients import Component, Layout, _read, replace_samples
from restoration.photo import decode_photo, encode_photo

from .small_generator import encode

PHOTO = data.astronaut()[:203, :317]
SUBSAMPLINGS = [{"subsampling": name} for name in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")]


@pytest.mark.parametrize("options", SUBSAMPLINGS, ids=lambda options: options["subsampling"])
def test_no_pixel_beyond_the_touched_blocks_changes(options):
    photo = decode_photo(encode(PHOTO, "JPEG", quality=80, **options))
    samples = photo.samples.copy()
    samples[100:104, 150:154] = 255
    again = decode_photo(encode_photo(photo, samples)).samples
    changed = np.argwhere((again != photo.samples).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert top >= 95
    assert bottom <= 112
    assert left >= 127
    assert right <= 160
    assert np.abs(again[101:103, 151:153].astype(int) - 255).mean() < 45


@pytest.mark.parametrize("options", SUBSAMPLINGS, ids=lambda options: options["subsampling"])
def test_blocks_transformed_anew_are_as_near_to_the_samples_as_libjpegs(options):
    photo = decode_photo(encode(np.full_like(PHOTO, 90), "JPEG", quality=95, **options))
    ours = decode_photo(encode_photo(photo, np.ascontiguousarray(PHOTO))).samples
    libjpegs = decode_photo(encode(PHOTO, "JPEG", quality=95, **options)).samples
    errors = [samples.astype(int) - PHOTO for samples in (ours, libjpegs)]
    ours_levels, libjpegs_levels = (np.abs(error).mean() for error in errors)
    assert ours_levels <= 1.02 * libjpegs_levels
    assert abs(errors[0].mean()) < 0.1


def test_a_whole_new_picture_fills_the_edges_too():
    photo = decode_photo(encode(PHOTO, "JPEG", quality=95))
    again = decode_photo(encode_photo(photo, np.full_like(photo.samples, 77))).samples
    assert np.abs(again.astype(int) - 77).max() <= 1


def test_encoding_anew_would_have_changed_what_stays(tmp_path):
    photo = decode_photo(encode(PHOTO, "JPEG", quality=90))
    (tmp_path / "original.jpg").write_bytes(photo.encoded)
    with Image.open(tmp_path / "original.jpg") as picture:
        tables = picture.quantization
    Image.fromarray(photo.samples).save(tmp_path / "anew.jpg", qtables=tables, subsampling="4:2:0")
    original, anew = (_read(tmp_path / name, photo.traits.layout)[0] for name in ("original.jpg", "anew.jpg"))
    share = (original != anew).any(axis=2).mean()
    assert share > 0.01


def test_coefficients_without_a_code_are_left_to_the_encoder(monkeypatch):
    photo = decode_photo(encode(PHOTO, "JPEG"))
    layout = photo.traits.layout
    beyond = [np.full((26, 40, 64), 1024, np.int16)]
    monkeypatch.setattr("restoration.jpeg_coefficients._read", lambda *_: beyond)
    assert replace_samples(photo.encoded, layout, photo.samples, photo.samples) is None


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    photo = decode_photo(encode(PHOTO, "JPEG"))
    assert encode_photo(photo, photo.samples ^ 255)
    assert not list(tmp_path.iterdir())


def test_components_that_are_no_multiples_are_not_whole():
    table = (1,) * 64
    components = (Component(3, 1, table), Component(2, 1, table), Component(1, 1, table))
    assert not Layout(8, 8, components, "YCbCr", is_progressive=False).is_whole
    assert Layout(8, 8, components[::2], "YCbCr", is_progressive=False).is_whole
