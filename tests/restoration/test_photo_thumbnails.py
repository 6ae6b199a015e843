"""Thumbnails that would show a photo unrestored."""

import io
import struct
import zlib

import pytest
import tifffile
from PIL import ExifTags, Image

from restoration.photo import decode_photo, encode_photo
from restoration.photo_thumbnails import without_resource_thumbnail, without_xmp_thumbnail

from .odd_photos import RGB, XMP, box, codestream, exif_with_thumbnail, jp2, jpeg, save

OLD = b"OLD PICTURE"
THUMBNAIL_XMP = XMP.replace(
    b"</rdf:RDF>",
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:Thumbnails><rdf:Alt><rdf:li>'
    + OLD
    + b"</rdf:li></rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:RDF>",
)


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    padded_name = bytes((len(name),)) + name + bytes((len(name) + 1) % 2)
    return (
        b"8BIM" + struct.pack(">H", number) + padded_name + struct.pack(">L", len(data)) + data + bytes(len(data) % 2)
    )


IPTC_RESOURCE, RESOLUTION = resource(1028, b"Moon!"), resource(1005, bytes(16), b"print")
RESOURCES = IPTC_RESOURCE + resource(1036, OLD * 3) + RESOLUTION


def app13(block: bytes) -> bytes:
    return b"\xff\xed" + struct.pack(">H", len(block) + 16) + b"Photoshop 3.0\0" + block


def tiff_with_thumbnails() -> bytes:
    encoded = io.BytesIO()
    tags = [(34377, "B", len(RESOURCES), RESOURCES, True), (700, "B", len(THUMBNAIL_XMP), THUMBNAIL_XMP, True)]
    tifffile.imwrite(encoded, RGB, photometric="rgb", metadata=None, extratags=tags)
    return encoded.getvalue()


def jp2_with_thumbnails() -> bytes:
    whole = jp2(codestream(RGB), RGB).replace(box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), XMP), b"")
    resources = box(b"uuid", bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb"), RESOURCES)
    xmp = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), THUMBNAIL_XMP)
    return whole.replace(box(b"xml ", b"<box>7</box>"), resources + xmp)


PHOTOS = {
    "JPEG": lambda: jpeg(xmp=THUMBNAIL_XMP, extra=app13(RESOURCES)),
    "JPEG whose resources are in two segments": lambda: jpeg(
        xmp=THUMBNAIL_XMP, extra=app13(RESOURCES[:50]) + app13(RESOURCES[50:])
    ),
    "TIFF": tiff_with_thumbnails,
    "JPEG 2000": jp2_with_thumbnails,
}


@pytest.mark.parametrize("make", PHOTOS.values(), ids=PHOTOS)
def test_a_restored_photo_shows_itself_unrestored_nowhere_and_keeps_the_rest(make):
    encoded = make()
    assert encoded.count(OLD) >= 3
    photo = decode_photo(encoded)
    assert encode_photo(photo, photo.samples.copy()) is photo.encoded
    painted = photo.samples.copy()
    painted[:40, :40] = 90
    restored = encode_photo(photo, painted)
    seen = restored if not encoded.startswith(b"II*") else tags_of(restored)
    assert OLD not in seen
    assert IPTC_RESOURCE in seen
    assert RESOLUTION in seen
    assert b"box 7" in seen


def test_the_thumbnail_in_a_jfif_segment_is_dropped_and_its_density_kept():
    encoded = jpeg()
    end = 4 + struct.unpack_from(">H", encoded, 4)[0] - 2 + 2
    thumbnail = bytes((11, 1)) + OLD * 3
    segment = encoded[6:18] + thumbnail
    photo = decode_photo(encoded[:4] + struct.pack(">H", len(segment) + 2) + segment + encoded[end:])
    painted = photo.samples.copy()
    painted[:40, :40] = 90
    restored = encode_photo(photo, painted)
    assert OLD not in restored
    assert restored[:20] == encoded[:20]


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_a_png_s_thumbnail_is_dropped_whether_its_exif_has_a_prefix_or_not(prefix):
    exif = exif_with_thumbnail().removeprefix(b"Exif\0\0")
    encoded = save(RGB, "PNG", exif=exif)
    without, chunk = (struct.pack(">L", len(data)) + b"eXIf" + data for data in (exif, prefix + exif))
    without, chunk = (each + struct.pack(">L", zlib.crc32(each[4:])) for each in (without, chunk))
    assert without in encoded
    photo = decode_photo(encoded.replace(without, chunk))
    assert photo.metadata.orientation == 6
    assert reopened_exif(photo.encoded).get_ifd(ExifTags.IFD.IFD1)
    restored = reopened_exif(encode_photo(photo, 255 - photo.samples))
    assert restored[ExifTags.Base.Orientation] == 6
    assert not restored.get_ifd(ExifTags.IFD.IFD1)


def reopened_exif(encoded: bytes) -> Image.Exif:
    return Image.open(io.BytesIO(encoded)).getexif()


def test_photoshops_layers_which_hold_the_photo_unrestored_are_dropped_from_a_tiff():
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, RGB, photometric="rgb", metadata=None, extratags=[(37724, 7, len(OLD), OLD, True)])
    photo = decode_photo(encoded.getvalue())
    painted = photo.samples.copy()
    painted[:40, :40] = 90
    (page,) = tifffile.TiffFile(io.BytesIO(encode_photo(photo, painted))).pages
    assert 37724 not in page.tags
    assert encode_photo(photo, photo.samples.copy()) is photo.encoded


def tags_of(encoded: bytes) -> bytes:
    """What a TIFF's directory points to: the old values stay in the file, as dead bytes."""
    page = tifffile.TiffFile(io.BytesIO(encoded)).pages[0]
    return b"".join(bytes(page.tags[number].value) for number in (700, 34377))


def test_blocks_that_are_no_resources_and_packets_that_never_close_stay():
    for block in (RESOURCES[:-3] + b"8BIM", b"x" + RESOURCES, RESOURCES[:20]):
        assert without_resource_thumbnail(block) == block
    assert without_xmp_thumbnail(THUMBNAIL_XMP.replace(b"</xmp:Thumbnails>", b"")).count(OLD) == 1


def test_many_thumbnails_that_never_close_take_no_time():
    opened = b"<xmp:Thumbnails>" * 200_000
    assert without_xmp_thumbnail(opened) == opened
