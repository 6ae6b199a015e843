"""Odd but valid photos, there and back. `python -m tests.restoration.test_formats` writes docs/formats.md's table."""

import io
import struct
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from skimage import data

from restoration.errors import InvalidOption
from restoration.jpeg_coefficients import _read
from restoration.photo import History, Photo, decode_photo, encode_photo
from restoration.photo_jpeg import JpegTraits
from restoration.tiff_segments import DEFLATE, Scheme, encode_segment

from .odd_photos import IPTC, ODD_PHOTOS, OddPhoto, box

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
START, END = "<!-- odd photos: generated -->\n", "<!-- odd photos: end -->"
HISTORY = History("0007", 0.0125)


def damage(photo: Photo) -> np.ndarray:
    """(H, W) bool: a scratch down the page that leaves strips, tiles and blocks on both sides."""
    mask = np.zeros((photo.height_px, photo.width_px), bool)
    mask[5:, 50:53] = True
    return mask


def paint(photo: Photo) -> np.ndarray:
    return photo.with_colour(np.full((photo.height_px, photo.width_px, 3), (210, 60, 30), np.uint8), damage(photo))


def restored(photo: Photo, **options) -> bytes:
    first, *further = (paint(page) for page in photo.pages)
    return encode_photo(photo, first, further_pages=further, **options)


@pytest.fixture(params=ODD_PHOTOS, ids=lambda odd: odd.name)
def odd(request) -> OddPhoto:
    return request.param


def test_it_is_what_the_table_says(odd):
    photo = decode_photo(odd.make())
    deep = {"RGB": " bits", "grey": " bits", "CMYK": " bits"}.get(photo.colours.name.split()[0])
    depth = f", {photo.samples.dtype.itemsize * 8}{deep}" if deep else ""
    assert photo.colours.name + depth == odd.kind


def test_untouched_it_comes_back_byte_for_byte(odd):
    photo = decode_photo(odd.make())
    same = [page.samples.copy() for page in photo.pages]
    assert encode_photo(photo, same[0], further_pages=same[1:], history=HISTORY) is photo.encoded


def test_restored_it_is_of_the_same_kind_with_the_same_metadata(odd):
    photo = decode_photo(odd.make())
    again = decode_photo(restored(photo))
    assert again.format == photo.format
    for before, after in zip(photo.pages, again.pages, strict=True):
        assert (after.colours, after.samples.shape) == (before.colours, before.samples.shape)
        assert after.samples.dtype == before.samples.dtype
        assert after.metadata == before.metadata


def test_samples_outside_the_damage_stay_bit_for_bit(odd):
    photo = decode_photo(odd.make())
    again = decode_photo(restored(photo))
    if isinstance(photo.traits, JpegTraits):
        assert_far_samples_are_equal(photo, again)
        return
    for before, after in zip(photo.pages, again.pages, strict=True):
        np.testing.assert_array_equal(after.samples, paint(before))
        np.testing.assert_array_equal(after.samples[~damage(before)], before.samples[~damage(before)])
        if before.colours.has_alpha and before.colours.name != "palette":
            np.testing.assert_array_equal(after.samples[:, :, -1], before.samples[:, :, -1])


def assert_far_samples_are_equal(photo: Photo, again: Photo) -> None:
    """Beyond the 16 x 16 blocks that the scratch crosses, and one pixel, which upsampled colours reach over."""
    assert isinstance(photo.traits, JpegTraits)
    if photo.traits.layout is not None:
        np.testing.assert_array_equal(again.samples[:, :47], photo.samples[:, :47])
        np.testing.assert_array_equal(again.samples[:, 65:], photo.samples[:, 65:])


def test_the_damage_is_painted_in_the_photos_colours(odd):
    photo = decode_photo(odd.make())
    seen = decode_photo(restored(photo)).colour()[40:60, 51].astype(int)
    expected = photo.colours.see(paint(photo))[40:60, 51].astype(int)
    assert np.abs(seen - expected).mean() < (40 if isinstance(photo.traits, JpegTraits) else 0.001)
    if photo.colours.name.startswith(("RGB", "CMYK")):
        assert np.abs(expected - (210, 60, 30)).mean() < 6


def test_the_history_is_an_entry_in_the_xmp_that_other_readers_find(odd):
    photo = decode_photo(odd.make())
    encoded = restored(photo, history=HISTORY)
    xmp = decode_photo(encoded).metadata.xmp
    if photo.format == "j2k":
        assert xmp is None
        return
    assert xmp is not None
    assert xmp.count(b"release 0007") == 1
    assert b"damage restored: 1.2500% of the photo" in xmp
    assert len(ElementTree.fromstring(xmp.decode()).findall(".//{*}History/{*}Seq/{*}li/{*}softwareAgent")) == 1
    assert encoded == restored(photo, history=HISTORY), "the same photo gives the same bytes"
    if photo.metadata.xmp:
        assert b"box 7" in xmp
    twice = decode_photo(encoded)
    samples = twice.samples.copy()
    samples[0] = samples[1]
    further = [page.samples for page in twice.further_pages]
    again = encode_photo(twice, samples, further_pages=further, history=History("0008", 0.5))
    assert (decode_photo(again).metadata.xmp or b"").count(b"<stEvt:action>") == 2


@pytest.mark.parametrize("odd", [odd for odd in ODD_PHOTOS if "TIFF" in odd.name], ids=lambda odd: odd.name)
def test_a_tiff_keeps_its_layout_and_every_tag_that_is_still_true(odd):
    before = tifffile.TiffFile(io.BytesIO(odd.make()))
    after = tifffile.TiffFile(io.BytesIO(restored(decode_photo(odd.make()))))
    assert (after.byteorder, after.is_bigtiff) == (before.byteorder, before.is_bigtiff)
    assert len(after.pages) == len(before.pages)
    places = {273, 279, 324, 325, 330}
    if "deflate" in odd.kept:
        places |= {259, 262, 266, 292, 293, 317, 347, 530, 531, 532}
    for pages in zip(before.pages, after.pages, strict=True):
        old, new = ({tag.code: str(tag.value) for tag in page.tags if tag.code not in places} for page in pages)
        assert new == old


def deflated_master(samples: np.ndarray) -> bytes:
    """16 bits, in one strip, which ends the file."""
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, samples, photometric="rgb", compression="zlib", predictor=True, metadata=None)
    return encoded.getvalue()


def test_a_strip_that_ends_a_tiff_grows_where_it_is_and_leaves_nothing_behind():
    noise = np.random.default_rng(0).integers(0, 2**16, (64, 64, 3), np.uint16)
    flat = noise.copy()
    flat[8:56] = 60_000
    (page,) = tifffile.TiffFile(io.BytesIO(deflated_master(flat))).pages
    photo = decode_photo(deflated_master(flat))
    grown = encode_photo(photo, noise)
    (after,) = tifffile.TiffFile(io.BytesIO(grown)).pages
    assert after.dataoffsets == page.dataoffsets
    assert len(grown) < len(deflated_master(noise)) + 400  # a directory more
    assert np.array_equal(decode_photo(grown).samples, noise)


@pytest.mark.parametrize("compression", [DEFLATE, 32946])
def test_a_deflated_strip_is_packed_denser_where_room_is_short(compression):
    samples = data.astronaut()[:64, :64].astype(np.uint16) * 257
    scheme = Scheme(compression, predictor=2, num_bits=16, order="<")
    usual = encode_segment(samples, scheme)
    denser = encode_segment(samples, scheme, room_bytes=len(usual) - 1)
    assert len(denser) < len(usual)
    assert imagecodecs.zlib_decode(denser) == imagecodecs.zlib_decode(usual)
    assert encode_segment(samples, scheme, room_bytes=len(usual)) == usual


@pytest.mark.parametrize("odd", [odd for odd in ODD_PHOTOS if "JPEG, " in odd.name[:6]], ids=lambda odd: odd.name)
def test_a_jpeg_keeps_the_coefficients_of_blocks_without_damage(odd, tmp_path):
    photo = decode_photo(odd.make())
    layout = photo.traits.layout
    if layout is None:
        return
    planes = []
    for name, encoded in (("before", photo.encoded), ("after", restored(photo))):
        (tmp_path / name).write_bytes(encoded)
        planes.append(_read(tmp_path / name, layout))
    for component, before, after in zip(layout.components, *planes, strict=True):
        changed = (before != after).any(axis=2)
        across = 8 * layout.most_horizontal // component.horizontal
        touched = np.zeros_like(changed)
        touched[:, 50 // across : 52 // across + 1] = True
        assert changed.any()
        assert not changed[~touched].any()


@pytest.mark.parametrize("odd", [odd for odd in ODD_PHOTOS if odd.kind == "CMYK, 8 bits"], ids=lambda odd: odd.name)
def test_inks_are_read_alike_by_other_decoders(odd):
    photo = decode_photo(odd.make())
    if isinstance(photo.traits, JpegTraits):
        encoded = restored(photo)
        np.testing.assert_array_equal(255 - imagecodecs.jpeg8_decode(encoded), decode_photo(encoded).samples)


@pytest.mark.parametrize(
    "odd", [odd for odd in ODD_PHOTOS if odd.name.startswith(("JPEG,", "JPEG of"))], ids=lambda odd: odd.name
)
def test_a_jpeg_keeps_tables_progression_and_each_segment_once(odd):
    encoded = odd.make()
    after = restored(decode_photo(encoded))
    pictures = [Image.open(io.BytesIO(file)) for file in (encoded, after)]
    assert pictures[0].quantization == pictures[1].quantization
    assert pictures[0].layer == pictures[1].layer
    assert ("progressive" in pictures[0].info) == ("progressive" in pictures[1].info)
    applists = [[each for each in picture.applist if each[1][:3] != b"MPF"] for picture in pictures]
    assert [name for name, _ in applists[0]] == [name for name, _ in applists[1]]
    if "thumbnail" not in odd.name:
        assert applists[0] == applists[1]
    assert not pictures[1].getexif().get_ifd(ExifTags.IFD.IFD1)


def test_iptc_is_kept(odd):
    encoded = odd.make()
    assert (IPTC in encoded) == (IPTC in restored(decode_photo(encoded)))


def can_hold(target: str, photo: Photo, depth: str) -> bool:
    if target == photo.format or target == "tiff":
        return True
    is_deep = photo.samples.dtype == np.uint16 and depth == "same"
    has_wrong_colours = photo.colours.has_alpha if target == "jpeg" else photo.colours.name == "CMYK"
    return not (photo.further_pages or has_wrong_colours or (is_deep and target not in ("png", "jp2")))


@pytest.mark.parametrize("target", ["jpeg", "png", "webp", "tiff", "jp2"])
@pytest.mark.parametrize("depth", ["same", "8"])
def test_converted_it_keeps_its_samples_or_is_refused_with_the_reason(odd, target, depth):
    photo = decode_photo(odd.make())
    further = [page.samples for page in photo.further_pages]
    if not can_hold(target, photo, depth):
        with pytest.raises(InvalidOption, match="ask for"):
            encode_photo(photo, photo.samples, further_pages=further, format=target, depth=depth)
        return
    encoded = encode_photo(photo, photo.samples, further_pages=further, format=target, depth=depth)
    again = decode_photo(encoded)
    assert again.format == target
    is_kept = encoded is photo.encoded
    if depth == "8" and not is_kept:
        assert again.samples.dtype == np.uint8
    if target in ("png", "tiff", "jp2"):
        difference = np.abs(again.colour().astype(int) - photo.colour().astype(int))
        assert difference.max() == 0


def boxes_of(jp2: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content, less the picture's."""
    boxes, at = [], 0
    while at < len(jp2):
        size, kind = struct.unpack_from(">L4s", jp2, at)
        boxes.append((kind, b"" if kind == b"jp2c" else jp2[at + 8 : at + size]))
        at += size
    return boxes


@pytest.mark.parametrize("odd", [odd for odd in ODD_PHOTOS if "all boxes" in odd.kept], ids=lambda odd: odd.name)
def test_a_jpeg_2000_keeps_every_box_and_other_readers_see_the_same(odd):
    photo = decode_photo(odd.make())
    encoded = restored(photo)
    assert boxes_of(encoded) == boxes_of(photo.encoded)
    assert photo.metadata.dpi == pytest.approx((600, 600))
    assert photo.metadata.orientation == 6
    if photo.samples.dtype == np.uint8:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), paint(photo))
    else:
        np.testing.assert_array_equal(np.atleast_3d(imagecodecs.jpeg2k_decode(encoded)), paint(photo))


def test_a_new_jpeg_2000_takes_profile_exif_xmp_and_resolution_along():
    photo = decode_photo(next(odd for odd in ODD_PHOTOS if odd.name == "PNG, Display P3").make())
    again = decode_photo(encode_photo(photo, photo.samples, format="jp2"))
    assert (again.metadata.icc_profile, again.metadata.exif) == (photo.metadata.icc_profile, photo.metadata.exif)
    assert again.metadata.xmp == photo.metadata.xmp
    assert again.metadata.dpi == pytest.approx(photo.metadata.dpi, rel=1e-3)
    assert Image.open(io.BytesIO(again.encoded)).info["dpi"] == pytest.approx((600, 600), rel=1e-3)


@pytest.mark.parametrize("broken", [b"\0\0\0", box(b"resc", b"12"), box(b"resc"), struct.pack(">L4s", 99, b"resc")])
def test_a_jpeg_2000_whose_resolution_is_broken_comes_without_one(broken):
    encoded = next(odd for odd in ODD_PHOTOS if odd.name == "JPEG 2000, 16-bit grey").make()
    intact = box(b"res ", box(b"resc", struct.pack(">HHHHbb", 6000, 254, 6000, 254, 3, 3)))
    at = encoded.index(b"jp2h") - 4
    header = encoded[at : at + struct.unpack_from(">L", encoded, at)[0]]
    changed = box(b"jp2h", header[8:].replace(intact, box(b"res ", broken)))
    photo = decode_photo(encoded.replace(header, changed))
    assert photo.metadata.dpi is None
    np.testing.assert_array_equal(photo.samples, decode_photo(encoded).samples)


def test_a_reason_names_what_to_ask_for():
    photo = decode_photo(next(odd for odd in ODD_PHOTOS if odd.name == "PNG, 16-bit RGBA").make())
    with pytest.raises(InvalidOption, match="16 bits a channel, but jpeg holds 8; add depth=8"):
        encode_photo(photo, photo.samples, format="jpeg")
    with pytest.raises(InvalidOption, match="alpha channel"):
        encode_photo(photo, photo.samples, format="jpeg", depth="8")


def table() -> str:
    lines = ["| photo | its samples | outside the damage | comes back |", "|---|---|---|---|"]
    for odd in ODD_PHOTOS:
        outside = "bit for bit" if odd.is_exact else "block by block" if "coefficients" in odd.kept else "nearly"
        lines.append(f"| {odd.name} | {odd.kind} | {outside} | {odd.kept} |")
    return "\n".join(lines) + "\n"


def test_the_documented_table_is_the_tested_one():
    page = PAGE.read_text()
    documented = page[page.index(START) + len(START) : page.index(END)]
    assert documented == table(), "write it anew: python -m tests.restoration.test_formats"


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START) + len(START)] + table() + text[text.index(END) :])
