"""Photos in and out, on real files of every format that is taken."""

import io
import struct
import zlib
from contextlib import suppress
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin
from skimage import data

from restoration.errors import (
    InvalidOption,
    PhotoError,
    PhotoTooLarge,
    PhotoUndecodable,
    UnsupportedFormat,
    UnsupportedPhoto,
)
from restoration.photo import MEDIA_TYPES, PhotoLimits, count_pixels, decode_photo, encode_photo
from restoration.photo_tags import read_directories

RGB = data.astronaut()[40:130, 160:280]
GREY = RGB[:, :, 1]
ALPHA = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (90, 1))
GREY_ALPHA = np.dstack((GREY, ALPHA))
RGBA = np.dstack((RGB, ALPHA))
PIXELS = {"L": GREY, "LA": GREY_ALPHA, "RGB": RGB, "RGBA": RGBA}

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
LOSSLESS_TIFFS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
KINDS = [
    *product(["JPEG"], ["L", "RGB"], [{}, {"progressive": True, "subsampling": 0}]),
    *product(["PNG"], PIXELS, [{}]),
    *product(["WEBP"], ["RGB", "RGBA"], [{}, {"lossless": True, "exact": True}]),
    *product(["TIFF"], PIXELS, [{"compression": compression} for compression in LOSSLESS_TIFFS]),
    ("TIFF", "RGB", {"compression": "jpeg"}),
]
IS_LOSSLESS = [
    kind
    for kind in KINDS
    if kind[0] == "PNG" or kind[2].get("lossless") or kind[2].get("compression") in LOSSLESS_TIFFS
]
WITHOUT_PREDICTOR = [
    *product([RGB, GREY], ["raw", "packbits"]),
    *product([Image.fromarray(GREY > 110)], ["tiff_adobe_deflate", "tiff_lzw", "group4"]),
]


def save(pixels, format, **options) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    output = io.BytesIO()
    picture.save(output, format, **options)
    return output.getvalue()


def reopen(encoded: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(encoded))
    picture.load()
    return picture


def make_exif() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Agfa"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1969:07:20 20:17:40"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def make_exif_with_thumbnail() -> bytes:
    """One tag, the orientation, and a second directory whose one tag holds b"OLD!"."""
    directory = struct.pack("<HHHLHHL", 1, 274, 3, 1, 6, 0, 26)
    thumbnail = struct.pack("<HHHL4sL", 1, 269, 2, 4, b"OLD!", 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + directory + thumbnail


def restore(photo):
    """A stand-in for restoring: a dark square where a scratch might have been."""
    samples = photo.samples.copy()
    samples[30:40, 50:60] = 20
    return samples


def restore_with_its_own(photo):
    """The same for a palette: samples of elsewhere in the photo."""
    samples = photo.samples.copy()
    samples[30:40, 50:60] = samples[:10, :10]
    return samples


def pack_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    at = png.index(b"IDAT") - 4
    return png[:at] + b"".join(pack_chunk(*chunk) for chunk in chunks) + png[at:]


def chunk_names(png: bytes) -> list[bytes]:
    names, at = [], 8
    while at < len(png):
        names.append(png[at + 4 : at + 8])
        at += 12 + struct.unpack_from(">L", png, at)[0]
    return names


def assert_metadata_is_kept(encoded: bytes) -> None:
    picture = Image.open(io.BytesIO(encoded))  # not loaded: Pillow would turn a TIFF and drop its orientation
    assert picture.info["icc_profile"] == PROFILE
    assert picture.info["xmp"].rstrip(b"\0") == XMP
    exif = picture.getexif()
    assert exif[ExifTags.Base.Make] == "Agfa"
    assert exif[ExifTags.Base.Orientation] == 6
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "1969:07:20 20:17:40"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def make_documented_photo(format: str) -> bytes:
    if format == "TIFF":
        return encode_photo(
            decode_photo(make_documented_photo("JPEG")), decode_photo(save(RGB, "PNG")).samples, format="tiff"
        )
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP)
    options = {"pnginfo": texts} if format == "PNG" else {"xmp": XMP}
    return save(RGB, format, exif=make_exif(), icc_profile=PROFILE, dpi=(600, 600), **options)


@pytest.mark.parametrize(("format", "mode", "options"), KINDS)
class TestEveryKindOfPhoto:
    def test_untouched_photo_comes_back_byte_for_byte(self, format, mode, options):
        photo = decode_photo(save(PIXELS[mode], format, **options))
        assert encode_photo(photo, photo.samples) is photo.encoded
        assert encode_photo(photo, photo.samples.copy()) is photo.encoded

    def test_samples_are_what_pillow_decodes(self, format, mode, options):
        encoded = save(PIXELS[mode], format, **options)
        photo = decode_photo(encoded)
        assert (photo.height_px, photo.width_px, photo.samples.shape[2]) == (90, 120, len(mode))
        np.testing.assert_array_equal(photo.samples.squeeze(), np.asarray(reopen(encoded)))
        assert not photo.samples.flags.writeable

    def test_restored_photo_comes_back_in_its_own_format_and_mode(self, format, mode, options):
        photo = decode_photo(save(PIXELS[mode], format, **options))
        picture = reopen(encode_photo(photo, restore(photo)))
        assert (picture.format, picture.mode, picture.size) == (format, mode, (120, 90))
        assert MEDIA_TYPES[photo.format] == picture.get_format_mimetype()


@pytest.mark.parametrize(("format", "mode", "options"), IS_LOSSLESS)
def test_lossless_photo_keeps_every_sample(format, mode, options):
    photo = decode_photo(save(PIXELS[mode], format, **options))
    restored = restore(photo)
    again = decode_photo(encode_photo(photo, restored))
    np.testing.assert_array_equal(again.samples, restored)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_and_orientation_are_kept(format):
    photo = decode_photo(make_documented_photo(format))
    assert photo.samples.shape == (90, 120, 3), "the stored grid, not turned"
    assert_metadata_is_kept(encode_photo(photo, restore(photo)))


@pytest.mark.parametrize(
    ("format", "target"), list(product(["JPEG", "PNG", "WEBP", "TIFF"], ["jpeg", "png", "webp", "tiff"]))
)
def test_metadata_goes_along_to_another_format(format, target):
    photo = decode_photo(make_documented_photo(format))
    converted = encode_photo(photo, photo.samples, format=target)
    assert decode_photo(converted).format == target
    assert_metadata_is_kept(converted)
    if "WEBP" not in (format, target.upper()):
        assert [round(float(dpi)) for dpi in Image.open(io.BytesIO(converted)).info["dpi"]] == [600, 600]


class TestColour:
    def test_colour_of_grey_is_grey_and_alpha_is_left_out(self):
        photo = decode_photo(save(GREY_ALPHA, "PNG"))
        np.testing.assert_array_equal(photo.colour(), np.dstack((GREY, GREY, GREY)))
        np.testing.assert_array_equal(decode_photo(save(RGBA, "PNG")).colour(), RGB)

    @pytest.mark.parametrize("mode", PIXELS)
    def test_only_samples_in_the_mask_change_and_alpha_never(self, mode):
        photo = decode_photo(save(PIXELS[mode], "PNG"))
        mask = np.zeros((90, 120), bool)
        mask[10:20, 30:60] = True
        colour = np.full((90, 120, 3), (250, 10, 60), np.uint8)
        painted = photo.with_colour(colour, mask)
        np.testing.assert_array_equal(painted[~mask], photo.samples[~mask])
        expected = (
            [250, 10, 60]
            if mode.startswith("RGB")
            else [Image.new("RGB", (1, 1), (250, 10, 60)).convert("L").getpixel((0, 0))]
        )
        assert (painted[mask][:, : len(expected)] == expected).all()
        if mode.endswith("A"):
            np.testing.assert_array_equal(painted[:, :, -1], ALPHA)

    def test_grey_painted_with_its_own_colour_stays(self):
        photo = decode_photo(save(GREY, "PNG"))
        everywhere = np.ones((90, 120), bool)
        np.testing.assert_array_equal(photo.with_colour(photo.colour(), everywhere), photo.samples)


class TestJpeg:
    @pytest.mark.parametrize(("subsampling", "progressive", "quality"), [(0, False, 91), (1, True, 60), (2, False, 75)])
    def test_tables_subsampling_and_progression_are_kept(self, subsampling, progressive, quality):
        encoded = save(RGB, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        photo = decode_photo(encoded)
        before, after = reopen(encoded), reopen(encode_photo(photo, restore(photo)))
        assert after.quantization == before.quantization
        assert after.layer == before.layer
        assert ("progressive" in after.info) == progressive

    def test_quality_replaces_the_tables_and_keeps_the_rest(self):
        photo = decode_photo(save(RGB, "JPEG", quality=60, subsampling=1, progressive=True))
        after = reopen(encode_photo(photo, photo.samples, quality=90))
        assert after.quantization == reopen(save(RGB, "JPEG", quality=90)).quantization
        assert "progressive" in after.info
        assert after.layer[0][1:3] == (2, 1)

    @pytest.mark.parametrize("shape", [(400, 400, 3), (20_000, 3, 3)])
    def test_a_grainy_progressive_photo_can_be_encoded_anew(self, shape):
        grain = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8) * 255
        photo = decode_photo(save(np.zeros_like(grain), "JPEG", progressive=True, subsampling=0, quality=60))
        before = ImageFile.MAXBLOCK
        after = reopen(encode_photo(photo, np.atleast_3d(grain), quality=100))
        assert "progressive" in after.info
        np.testing.assert_allclose(np.asarray(after), grain, atol=8)
        assert before == ImageFile.MAXBLOCK

    def test_samples_stored_as_rgb_stay_so(self):
        photo = decode_photo(save(RGB, "JPEG", keep_rgb=True, subsampling=0))
        after = reopen(encode_photo(photo, restore(photo)))
        assert bytes(component[0] for component in after.layer) == b"RGB"

    def test_comments_iptc_and_further_segments_are_kept_byte_for_byte(self):
        iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04\x1c\x02\x05\0"
        segments = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc + b"\xff\xfe\0\x07first\xff\xfe\0\x08second"
        encoded = save(RGB, "JPEG", exif=make_exif(), extra=segments)
        photo = decode_photo(encoded)
        assert segments in encode_photo(photo, restore(photo))

    def test_density_in_centimetres_stays_in_centimetres(self):
        encoded = bytearray(save(RGB, "JPEG", dpi=(300, 300)))
        encoded[13:18] = struct.pack(">BHH", 2, 118, 119)
        photo = decode_photo(bytes(encoded))
        after = reopen(encode_photo(photo, restore(photo)))
        assert (after.info["jfif_unit"], after.info["jfif_density"]) == (2, (118, 119))

    def test_stale_thumbnail_is_dropped(self):
        encoded = save(RGB, "JPEG", exif=make_exif_with_thumbnail())
        assert reopen(encoded).getexif().get_ifd(ExifTags.IFD.IFD1)
        photo = decode_photo(encoded)
        exif = reopen(encode_photo(photo, restore(photo))).getexif()
        assert exif[ExifTags.Base.Orientation] == 6
        assert not exif.get_ifd(ExifTags.IFD.IFD1)

    def test_of_a_phone_photo_with_two_pictures_the_first_is_taken(self):
        encoded = save(RGB, "MPO", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())], exif=make_exif())
        assert Image.open(io.BytesIO(encoded)).format == "MPO"
        photo = decode_photo(encoded)
        after = reopen(encode_photo(photo, restore(photo)))
        assert (photo.format, after.format) == ("jpeg", "JPEG")
        assert after.getexif()[ExifTags.Base.Make] == "Agfa"
        assert np.abs(photo.samples.astype(int) - RGB).mean() < 10

    def test_file_of_nothing_but_segments_is_refused_early(self):
        encoded = save(RGB, "JPEG")
        with pytest.raises(PhotoUndecodable, match="segments"):
            decode_photo(encoded[:2] + b"\xff\xe5\0\x02" * 20_000 + encoded[2:])

    def test_broken_exif_does_not_stop_a_photo(self):
        broken = bytearray(make_exif())
        broken[14:120] = b"\xee" * len(broken[14:120])
        photo = decode_photo(save(RGB, "JPEG", exif=bytes(broken)))
        for target in ("jpeg", "png", "webp", "tiff"):
            assert encode_photo(photo, restore(photo), format=target)


class TestPng:
    def test_gamma_density_texts_and_private_chunks_are_kept(self):
        info = PngImagePlugin.PngInfo()
        info.add(b"gAMA", struct.pack(">L", 45455))
        info.add(b"spOt", b"may be copied")
        info.add(b"spOT", b"depends on the samples")
        info.add_text("Title", "Moon")
        info.add_itxt("Author", "Zoë", lang="nl")
        photo = decode_photo(save(RGB, "PNG", pnginfo=info, dpi=(300, 300)))
        encoded = encode_photo(photo, restore(photo))
        after = reopen(encoded)
        assert after.info["gamma"] == 0.45455
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.02)
        assert after.text == {"Title": "Moon", "Author": "Zoë"}
        assert b"may be copied" in encoded
        assert b"depends on the samples" not in encoded

    @pytest.mark.parametrize(("pixels", "transparency"), [(GREY, 7), (RGB, (1, 2, 3))])
    def test_transparent_colour_is_kept_and_goes_to_no_other_format(self, pixels, transparency):
        photo = decode_photo(save(pixels, "PNG", transparency=transparency))
        assert reopen(encode_photo(photo, restore(photo))).info["transparency"] == transparency
        with pytest.raises(InvalidOption, match="transparent colour"):
            encode_photo(photo, photo.samples, format="webp")

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("depth", ["same", "8"])
    def test_a_transparent_colour_of_16_bits_makes_no_alpha_channel(self, channels, depth):
        deep = RGB[:, :, :channels].astype(np.uint16) * 257
        transparency = struct.pack(f">{channels}H", *deep[5, 5].tolist())
        encoded = with_chunks(
            imagecodecs.png_encode(deep.squeeze()), (b"tRNS", transparency), (b"sBIT", b"\x0c" * channels)
        )
        photo = decode_photo(encoded)
        np.testing.assert_array_equal(photo.samples, deep)
        restored = encode_photo(photo, restore(photo), depth=depth)
        again = decode_photo(restored)
        expected = deep if depth == "same" else RGB[:, :, :channels]
        np.testing.assert_array_equal(again.samples[:, :50], expected[:, :50])
        assert restored[25] == encoded[25], "the colour type"
        tag = transparency if depth == "same" else struct.pack(f">{channels}H", *RGB[5, 5, :channels].tolist())
        assert pack_chunk(b"tRNS", tag) in restored
        assert pack_chunk(b"sBIT", (b"\x0c" if depth == "same" else b"\x08") * channels) in restored

    @pytest.mark.parametrize(
        "encoded",
        [
            pytest.param(lambda: save(RGB, "PNG", transparency=(1, 2, 3)), id="a transparent colour"),
            pytest.param(lambda: save(Image.fromarray(RGB).quantize(7), "PNG"), id="a palette"),
        ],
    )
    def test_a_png_of_another_size_keeps_its_colour_type_and_chunks(self, encoded):
        before = with_chunks(encoded(), (b"gAMA", struct.pack(">L", 55556)), (b"tEXt", b"Title\0Moon"))
        photo = decode_photo(before)
        wider = np.concatenate((photo.samples, restore_with_its_own(photo)), axis=1)
        after = encode_photo(photo, wider)
        np.testing.assert_array_equal(decode_photo(after).samples, wider)
        assert after[24:26] == before[24:26]
        assert chunk_names(after) == chunk_names(before)

    @pytest.mark.parametrize(
        ("chunk", "named"),
        [
            ((b"gAMA", struct.pack(">L", 100_000)), "gAMA"),
            ((b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)), "cHRM"),
            ((b"cICP", bytes((9, 16, 0, 1))), "cICP"),
        ],
    )
    def test_colours_that_only_a_png_can_define_stay_with_it_and_go_to_no_other_format(self, chunk, named):
        photo = decode_photo(with_chunks(imagecodecs.png_encode(RGB.astype(np.uint16) * 257), chunk))
        assert pack_chunk(*chunk) in encode_photo(photo, restore(photo), depth="8")
        for target in ("jpeg", "tiff", "jp2"):
            with pytest.raises(InvalidOption, match=f"colours that {named} define"):
                encode_photo(photo, photo.samples, format=target, depth="8")

    @pytest.mark.parametrize(
        "chunks",
        [
            [(b"gAMA", struct.pack(">L", 45455))],
            [
                (b"gAMA", struct.pack(">L", 45450)),
                (b"cHRM", struct.pack(">8L", 31270, 32900, 63999, 33001, 30000, 60000, 15000, 5999)),
            ],
            [(b"cICP", bytes((1, 13, 0, 1))), (b"gAMA", struct.pack(">L", 55556))],
            [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">L", 55556))],
            [(b"gAMA", b"12345")],
        ],
    )
    def test_a_png_in_srgb_can_be_any_format(self, chunks):
        photo = decode_photo(with_chunks(save(RGB, "PNG"), *chunks))
        assert decode_photo(encode_photo(photo, photo.samples, format="jpeg")).format == "jpeg"

    def test_with_a_profile_the_colours_go_along(self):
        photo = decode_photo(with_chunks(save(RGB, "PNG", icc_profile=PROFILE), (b"gAMA", struct.pack(">L", 55556))))
        assert decode_photo(encode_photo(photo, photo.samples, format="jpeg")).metadata.icc_profile == PROFILE

    def test_text_bomb_is_refused(self):
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "a" * 5_000_000, zip=True)
        with pytest.raises(PhotoUndecodable):
            decode_photo(save(GREY, "PNG", pnginfo=info))

    def test_file_of_nothing_but_chunks_is_refused_early(self):
        encoded = save(GREY, "PNG")
        empty = struct.pack(">L4sL", 0, b"abCd", zlib.crc32(b"abCd"))
        with pytest.raises(PhotoUndecodable, match="chunks"):
            decode_photo(encoded[:33] + empty * 20_000 + encoded[33:])


class TestWebp:
    @pytest.mark.parametrize("is_lossless", [True, False])
    def test_either_becomes_lossless_so_that_undamaged_samples_stay(self, is_lossless):
        photo = decode_photo(save(RGB, "WEBP", lossless=is_lossless))
        encoded = encode_photo(photo, restore(photo))
        assert encoded[12:16] == b"VP8L"
        np.testing.assert_array_equal(decode_photo(encoded).samples, restore(photo))

    def test_quality_makes_it_lossy(self):
        photo = decode_photo(save(RGB, "WEBP", lossless=True))
        assert encode_photo(photo, photo.samples, quality=50)[12:16] == b"VP8 "

    def test_colours_under_full_transparency_survive(self):
        hidden = RGBA.copy()
        hidden[:, :, 3] = 0
        photo = decode_photo(save(hidden, "PNG"))
        again = decode_photo(encode_photo(photo, photo.samples, format="webp"))
        np.testing.assert_array_equal(again.samples, hidden)


class TestTiff:
    @pytest.mark.parametrize("compression", LOSSLESS_TIFFS)
    def test_lossless_compression_is_kept(self, compression):
        encoded = save(RGB, "TIFF", compression=compression, tiffinfo={317: 2} if "deflate" in compression else {})
        photo = decode_photo(encoded)
        before, after = reopen(encoded), reopen(encode_photo(photo, restore(photo)))
        assert after.info["compression"] == compression
        assert after.tag_v2.get(317) == before.tag_v2.get(317)

    def test_jpeg_inside_tiff_becomes_deflate_so_that_undamaged_samples_stay(self):
        photo = decode_photo(save(RGB, "TIFF", compression="jpeg"))
        encoded = encode_photo(photo, restore(photo))
        assert reopen(encoded).info["compression"] == "tiff_adobe_deflate"
        np.testing.assert_array_equal(decode_photo(encoded).samples, restore(photo))

    @pytest.mark.parametrize(("orientation", "compression"), list(product(range(1, 9), ["raw", "tiff_lzw"])))
    def test_orientation_is_kept_and_not_applied(self, orientation, compression):
        photo = decode_photo(save(RGB, "TIFF", compression=compression, tiffinfo={274: orientation}))
        np.testing.assert_array_equal(photo.samples, RGB)
        encoded = encode_photo(photo, restore(photo))
        assert Image.open(io.BytesIO(encoded)).tag_v2[274] == orientation
        np.testing.assert_array_equal(decode_photo(encoded).samples, restore(photo))

    @pytest.mark.parametrize("byte_order", [b"II", b"MM"])
    def test_tags_keep_their_values_in_either_byte_order(self, byte_order):
        tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=byte_order)
        tags[282], tags[283], tags[296] = 118.11, 118.11, 3
        tags[270], tags.tagtype[270] = "Zoë, 1969".encode("latin-1"), 2
        tags[33723], tags.tagtype[33723] = b"\x1c\x02\x05\0\x01x", 7
        tags[34665] = {36867: "1969:07:20 20:17:40", 33434: TiffImagePlugin.IFDRational(1, 125)}
        # Written by hand: Pillow only writes little-endian.
        strip = 8
        tags[256], tags[257], tags[258], tags[259], tags[262] = 120, 90, 8, 1, 1
        tags[273], tags[278], tags[279] = strip, 90, GREY.size
        encoded = byte_order + tags._pack("HL", 42, strip + GREY.size) + GREY.tobytes()
        entries = bytearray(tags.tobytes(len(encoded)))
        at = next(i for i in range(2, len(entries), 12) if tags._unpack("H", entries[i : i + 2]) == (273,))
        entries[at + 2 : at + 12] = tags._pack("HLL", 4, 1, strip)
        photo = decode_photo(encoded + bytes(entries))
        np.testing.assert_array_equal(photo.samples[:, :, 0], GREY)
        after = Image.open(io.BytesIO(encode_photo(photo, restore(photo))))
        assert after.tag_v2[282] == pytest.approx(118.11)
        assert after.tag_v2[296] == 3
        assert after.tag_v2[270] == "Zoë, 1969"
        assert after.tag_v2[33723] == b"\x1c\x02\x05\0\x01x"
        exif = after.getexif().get_ifd(ExifTags.IFD.Exif)
        assert exif == {36867: "1969:07:20 20:17:40", 33434: TiffImagePlugin.IFDRational(1, 125)}


class TestConversion:
    def test_jpeg_from_another_format_is_4_4_4_of_quality_95(self):
        photo = decode_photo(save(RGB, "PNG"))
        picture = reopen(encode_photo(photo, photo.samples, format="jpeg"))
        assert picture.quantization == reopen(save(RGB, "JPEG", quality=95)).quantization
        assert {component[1:3] for component in picture.layer} == {(1, 1)}

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_alpha_to_jpeg_is_refused_with_the_reason(self, mode):
        photo = decode_photo(save(PIXELS[mode], "PNG"))
        with pytest.raises(InvalidOption, match="alpha channel, which JPEG can't hold"):
            encode_photo(photo, photo.samples, format="jpeg")

    @pytest.mark.parametrize(("mode", "target"), list(product(PIXELS, ["png", "tiff"])))
    def test_lossless_targets_keep_every_sample(self, mode, target):
        photo = decode_photo(save(PIXELS[mode], "PNG"))
        again = decode_photo(encode_photo(photo, photo.samples, format=target))
        np.testing.assert_array_equal(again.samples, photo.samples)

    def test_what_came_lossless_becomes_lossless_webp(self):
        for encoded, chunk in ((save(RGB, "PNG"), b"VP8L"), (save(RGB, "JPEG"), b"VP8 ")):
            photo = decode_photo(encoded)
            assert encode_photo(photo, photo.samples, format="webp")[12:16] == chunk

    @pytest.mark.parametrize(("mode", "num_channels"), [("L", 3), ("LA", 4)])
    def test_grey_becomes_rgb_in_webp_which_knows_no_grey(self, mode, num_channels):
        photo = decode_photo(save(PIXELS[mode], "PNG"))
        again = decode_photo(encode_photo(photo, photo.samples, format="webp"))
        np.testing.assert_array_equal(again.samples[:, :, :3], photo.colour())
        assert again.samples.shape[2] == num_channels

    def test_grey_profile_stays_away_from_rgb_webp(self):
        photo = decode_photo(save(GREY, "PNG", icc_profile=PROFILE[:16] + b"GRAY" + PROFILE[20:]))
        assert "icc_profile" not in reopen(encode_photo(photo, photo.samples, format="webp")).info

    def test_of_exif_too_big_for_jpeg_the_orientation_is_kept(self):
        photo = decode_photo(save(RGB, "PNG", exif=make_exif() + bytes(70_000)))
        exif = reopen(encode_photo(photo, photo.samples, format="jpeg")).getexif()
        assert dict(exif) == {ExifTags.Base.Orientation: 6}

    @pytest.mark.parametrize("byteorder", "<>")
    def test_iptc_and_photoshops_resources_go_from_one_tiff_to_another(self, byteorder):
        iptc, resources = b"\x1c\x02\x05\x00\x04Moon", b"8BIM\x04\x04\0\0\0\0\0\x09\x1c\x02\x05\x00\x04Moon\0"
        tags = [(33723, 7, len(iptc), iptc, True), (34377, 1, len(resources), resources, True)]
        encoded = io.BytesIO()
        tifffile.imwrite(
            encoded, RGB.astype(np.uint16), byteorder=byteorder, photometric="rgb", metadata=None, extratags=tags
        )
        photo = decode_photo(encoded.getvalue())
        (page,) = tifffile.TiffFile(io.BytesIO(encode_photo(photo, restore(photo), depth="8"))).pages
        assert (page.tags[33723].value, page.tags[34377].value) == (iptc, resources)

    @pytest.mark.parametrize(
        ("format", "quality"), [("jpeg", 0), ("jpeg", 101), ("webp", -1), ("png", 90), ("tiff", 90)]
    )
    def test_impossible_quality_is_refused(self, format, quality):
        photo = decode_photo(save(RGB, "PNG"))
        with pytest.raises(InvalidOption, match=f"quality={quality}"):
            encode_photo(photo, photo.samples, format=format, quality=quality)

    def test_side_that_webp_cannot_hold_is_refused(self):
        photo = decode_photo(save(np.zeros((1, 16_384), np.uint8), "PNG"))
        with pytest.raises(InvalidOption, match="16,383"):
            encode_photo(photo, photo.samples, format="webp")

    def test_a_wider_picture_can_be_written_too(self):
        photo = decode_photo(save(RGB, "JPEG"))
        side_by_side = np.concatenate((photo.samples, restore(photo)), axis=1)
        assert reopen(encode_photo(photo, side_by_side)).size == (240, 90)


class TestRefusals:
    @pytest.mark.parametrize(
        ("encoded", "found"),
        [
            (save(GREY, "GIF"), "a GIF"),
            (save(RGB, "BMP"), "a BMP"),
            (save(RGB, "PDF"), "a PDF"),
            (save(RGB, "AVIF"), "an AVIF"),
            (b"8BPS\0\x01" + bytes(40), "a Photoshop document"),
            (b"PK\x03\x04" + bytes(40), "a ZIP archive"),
            ("Dear archive, \n\tfind enclosed a photo of Zoë".encode(), "text"),
            (bytes(range(200, 240)), "an unknown format"),
        ],
    )
    def test_other_formats_are_named_and_the_taken_ones_listed(self, encoded, found):
        with pytest.raises(UnsupportedFormat, match=f"found {found}.*JPEG, PNG, WebP, TIFF and JPEG 2000"):
            decode_photo(encoded)

    def test_nothing_at_all_is_undecodable(self):
        with pytest.raises(PhotoUndecodable, match="empty"):
            decode_photo(b"")

    @pytest.mark.parametrize(
        ("encoded", "found"),
        [
            (save(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "whole numbers"),
            (save(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "whole numbers"),
            (save(Image.fromarray(RGB).convert("RGBX"), "TIFF"), "extra channels"),
            (save(Image.fromarray(RGB).convert("LAB"), "TIFF"), "photometric interpretation 8"),
            (save(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), "photometric interpretation 6"),
            (save(RGB, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]), "more than one"),
            (save(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]), "animation"),
        ],
    )
    def test_other_kinds_of_photo_are_named(self, encoded, found):
        with pytest.raises(UnsupportedPhoto, match=found):
            decode_photo(encoded)

    def test_premultiplied_alpha_is_not_quietly_divided_out(self):
        encoded = save(RGBA, "TIFF")
        straight, premultiplied = (struct.pack("<HHLHH", 338, 3, 1, kind, 0) for kind in (2, 1))
        assert encoded.count(straight) == 1
        with pytest.raises(UnsupportedPhoto, match="premultiplied"):
            decode_photo(encoded.replace(straight, premultiplied))

    @pytest.mark.parametrize(("pixels", "compression"), WITHOUT_PREDICTOR)
    def test_a_predictor_that_readers_take_differently_is_refused(self, pixels, compression):
        with pytest.raises(UnsupportedPhoto, match=r"a predictor where there is none.* save it anew"):
            decode_photo(with_predictor(save(pixels, "TIFF", compression=compression, dpi=(300, 300))))

    @pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
    def test_a_predictor_that_all_readers_take_alike_is_taken(self, compression):
        encoded = with_predictor(save(RGB, "TIFF", compression=compression, dpi=(300, 300)))
        np.testing.assert_array_equal(decode_photo(encoded).samples, np.asarray(reopen(encoded)))

    def test_more_pages_than_the_limit_are_refused(self):
        encoded = save(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(RGB)] * 2)
        assert len(decode_photo(encoded, PhotoLimits(max_pages=3)).pages) == 3
        with pytest.raises(UnsupportedPhoto, match="more than 2 pages"):
            decode_photo(encoded, PhotoLimits(max_pages=2))

    def test_tiles_and_jpegs_that_claim_far_more_than_the_photo_are_refused(self):
        tiled = io.BytesIO()
        tifffile.imwrite(tiled, GREY, tile=(64, 64), photometric="minisblack")
        tags = [struct.pack("<HHLL", number, 4, 1, side) for number in (322, 323) for side in (64, 32_768)]
        encoded = tiled.getvalue()
        for small, large in (tags[:2], tags[2:]):
            small = small if small in encoded else small[:2] + struct.pack("<HLHH", 3, 1, 64, 0)
            assert small in encoded
            encoded = encoded.replace(small, large)
        with pytest.raises(PhotoUndecodable):
            decode_photo(encoded)
        jpeg = bytearray(save(GREY, "TIFF", compression="jpeg"))
        at = jpeg.index(b"\xff\xc0") + 5
        jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
        with pytest.raises(PhotoUndecodable, match="larger than its strip"):
            decode_photo(bytes(jpeg))

    def test_directories_that_lead_in_a_circle_are_refused(self):
        encoded = bytearray(save(RGB, "TIFF", compression="raw"))
        (first,) = read_directories(bytes(encoded))
        struct.pack_into("<L", encoded, first.link_at, first.offset)
        with pytest.raises(PhotoUndecodable, match="circle"):
            decode_photo(bytes(encoded))

    def test_a_cmyk_profile_that_leads_nowhere_is_refused(self):
        profile = PROFILE[:16] + b"CMYK" + PROFILE[20:]
        for format in ("JPEG", "TIFF"):
            with pytest.raises(UnsupportedPhoto, match="profile can't be converted through"):
                decode_photo(save(Image.fromarray(RGB).convert("CMYK"), format, icc_profile=profile))


class TestLimits:
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_too_many_pixels_or_too_long_a_side_is_refused_with_both_figures(self, format):
        encoded = save(RGB, format)
        assert decode_photo(encoded, PhotoLimits(max_pixels=90 * 120, max_side_px=120))
        with pytest.raises(PhotoTooLarge, match=r"120 x 90 .*10,799 pixels"):
            decode_photo(encoded, PhotoLimits(max_pixels=90 * 120 - 1))
        with pytest.raises(PhotoTooLarge, match=r"119 pixels a side"):
            decode_photo(encoded, PhotoLimits(max_side_px=119))

    def test_the_limit_of_pixels_is_for_all_pages_together(self):
        encoded = save(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(RGB)])
        assert count_pixels(encoded, PhotoLimits(max_pixels=2 * 90 * 120)) == 2 * 90 * 120
        with pytest.raises(PhotoTooLarge, match=r"pages up to one of 120 x 90 .* 21,600 together.* 21,599 pixels"):
            decode_photo(encoded, PhotoLimits(max_pixels=2 * 90 * 120 - 1))

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_limit_is_checked_before_samples_are_read(self, format):
        """The picture itself is cut off or claims a size that the file can't fill: a decoder would complain first."""
        with pytest.raises(PhotoTooLarge):
            decode_photo(make_huge_claim(format))

    def test_pillows_own_limit_plays_no_part(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6_000)
        for encoded in (save(RGB, "JPEG"), save(RGB, "PNG"), save(RGB, "WEBP"), save(RGB, "TIFF", compression="raw")):
            assert decode_photo(encoded).samples.shape == (90, 120, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about metadata; outside of tests they are not errors
@pytest.mark.parametrize(("format", "mode", "options"), [kind for kind in KINDS if kind[1] in ("L", "RGBA", "RGB")])
class TestDamagedFiles:
    def test_truncated_file_is_undecodable(self, format, mode, options):
        encoded = save(PIXELS[mode], format, **options)
        whole = decode_photo(encoded).samples
        for num_bytes in range(16, len(encoded) - 16, max(1, len(encoded) // 40)):
            with pytest.raises(PhotoUndecodable):
                decode_photo(encoded[:num_bytes])
        for num_bytes in range(len(encoded) - 16, len(encoded)):  # an end marker or padding: nothing of the picture
            with suppress(PhotoUndecodable):
                np.testing.assert_array_equal(decode_photo(encoded[:num_bytes]).samples, whole)

    def test_flipped_bytes_raise_nothing_but_photo_errors(self, format, mode, options):
        encoded = save(PIXELS[mode], format, **options)
        rng = np.random.default_rng(len(encoded))
        for end in [400, len(encoded)] * 25:
            damaged = bytearray(encoded)
            for position in rng.integers(0, min(end, len(encoded)), rng.integers(1, 4)):
                damaged[position] = rng.integers(0, 256)
            try:
                photo = decode_photo(bytes(damaged), PhotoLimits(max_pixels=1_000_000))
            except PhotoError:
                continue
            changed = photo.samples.copy()
            changed[:1] ^= 255
            assert encode_photo(photo, changed)
            assert encode_photo(photo, changed, format="tiff" if photo.format != "png" else "png")


def with_predictor(encoded: bytes) -> bytes:
    """A TIFF that says so in place of a unit of resolution; its samples stay as they are."""
    unit, predictor = (struct.pack("<HHLHH", number, 3, 1, 2, 0) for number in (296, 317))
    assert encoded.count(unit) == 1
    return encoded.replace(unit, predictor)


def make_png(width_px: int, height_px: int, bits: int, colour_type: int, picture: bytes) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">LLBBBBB", width_px, height_px, bits, colour_type, 0, 0, 0)),
        (b"IDAT", picture),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(pack_chunk(name, content) for name, content in chunks)


def make_huge_claim(format: str) -> bytes:
    if format == "PNG":
        return make_png(65_000, 65_000, 8, 2, zlib.compress(bytes(100)))
    encoded = bytearray(save(RGB, format, compression="raw") if format == "TIFF" else save(RGB, format))
    if format == "JPEG":
        at = encoded.index(b"\xff\xc0") + 5
        encoded[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    elif format == "WEBP":
        encoded[26:30] = struct.pack("<HH", 16_383, 16_383)
    else:
        for tag in (256, 257):
            at = encoded.index(struct.pack("<H", tag), 8)
            encoded[at : at + 12] = struct.pack("<HHLL", tag, 4, 1, 65_000)
    return bytes(encoded)


def test_a_jpeg_stored_as_rgb_with_subsampled_components_is_written_back() -> None:
    file = io.BytesIO()
    Image.fromarray(data.astronaut()[:64, :64]).save(file, "JPEG", subsampling=2, quality=90)
    encoded = file.getvalue()
    app0_bytes = 2 + int.from_bytes(encoded[4:6], "big")
    adobe_rgb = bytes.fromhex("ffee000e41646f626500640000000000")  # APP14, transform 0
    photo = decode_photo(encoded[:2] + adobe_rgb + encoded[2 + app0_bytes :])
    changed = photo.samples.copy()
    changed[:8, :8] = 0
    assert decode_photo(encode_photo(photo, changed)).samples.shape == photo.samples.shape


def test_a_tiff_that_begins_with_a_reduced_copy_is_refused() -> None:
    encoded = io.BytesIO()
    Image.fromarray(data.astronaut()[:64, :64]).save(encoded, "TIFF", tiffinfo={254: 1})
    with pytest.raises(UnsupportedPhoto, match="reduced copy"):
        decode_photo(encoded.getvalue())
