"""Photos as archives have them: odd, valid, and each of another kind. All are made here."""

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, PngImagePlugin
from skimage import data

from restoration.photo_tags import Tag, pack_directory, read_directories, read_layout

from .profiles import ink_profile, rgb_profile

RGB = data.astronaut()[40:131, 160:281]  # 91 x 121: no multiple of 8
GREY = RGB[:, :, 1]
ALPHA = np.tile(np.linspace(0, 255, 121).astype(np.uint8), (91, 1))
DEEP_RGB = RGB.astype(np.uint16) * 256 + np.arange(121, dtype=np.uint16)[:, None]  # low bytes that hold something
DEEP_GREY, DEEP_ALPHA = DEEP_RGB[:, :, 1].copy(), ALPHA.astype(np.uint16) * 257
INKS = np.dstack((255 - RGB, GREY // 4))
BLACK_AND_WHITE = GREY > 110
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="box 7"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x04Moon"


class OddPhoto(NamedTuple):
    """kind: what its samples are; kept: what of its coding comes back, and what not."""

    name: str
    make: Callable[[], bytes]
    kind: str
    kept: str
    is_exact: bool = True


def picture_of(pixels: np.ndarray, mode: str | None = None) -> Image.Image:
    if mode is None:
        return Image.fromarray(pixels)
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())


def save(picture: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    output = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else picture_of(picture)).save(output, format, **options)
    return output.getvalue()


def exif_of() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Agfa", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1969:07:20 20:17:40"
    return exif.tobytes()


def exif_with_thumbnail() -> bytes:
    """The orientation, and a second directory whose one tag holds b"OLD!"."""
    directory = struct.pack("<HHHLHHL", 1, 274, 3, 1, 6, 0, 26)
    return b"Exif\0\0II*\0\x08\0\0\0" + directory + struct.pack("<HHHL4sL", 1, 269, 2, 4, b"OLD!", 0)


def iptc_segment() -> bytes:
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">L", len(IPTC)) + IPTC
    return b"\xff\xed" + struct.pack(">H", len(block) + 2) + block


def png(picture: np.ndarray | Image.Image, **options: object) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "Moon")
    texts.add_itxt("XML:com.adobe.xmp", XMP)
    return save(picture, "PNG", pnginfo=texts, dpi=(600, 600), exif=exif_of(), **options)


def deep_png(samples: np.ndarray, profile: bytes | None = None) -> bytes:
    """By imagecodecs, with the chunks that go before the picture taken from a PNG of Pillow's."""
    encoded = imagecodecs.png_encode(samples)
    header = png(Image.new("L", (1, 1)), icc_profile=profile)
    return encoded[:33] + header[33 : header.index(b"IDAT") - 4] + encoded[33:]


def palette(num_colours: int) -> Image.Image:
    return picture_of(RGB).quantize(num_colours, dither=Image.Dither.NONE)


def see_through_palette() -> bytes:
    return png(palette(4), bits=2, transparency=bytes((255, 255, 90, 0)))


def tiff(samples: np.ndarray, *, byteorder: str = "<", bigtiff: bool = False, **options: object) -> bytes:
    """With what an archive's tags hold: resolution, title, orientation, XMP, IPTC."""
    output = io.BytesIO()
    tags = [(274, "H", 1, 6, True), (700, "B", len(XMP), XMP, True), (33723, "B", len(IPTC), IPTC, True)]
    about = {"metadata": None, "description": "Moon", "resolution": (600, 600), "resolutionunit": 2, "extratags": tags}
    with tifffile.TiffWriter(output, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(samples, **about, **options)
    return output.getvalue()


def mixed_pages() -> bytes:
    output = io.BytesIO()
    with tifffile.TiffWriter(output) as writer:
        writer.write(RGB, photometric="rgb", compression="lzw", metadata=None)
        writer.write(DEEP_GREY[:70], photometric="minisblack", compression="deflate", predictor=True, metadata=None)
        writer.write(BLACK_AND_WHITE[:, :90], photometric="minisblack", metadata=None)
    return output.getvalue()


def with_pyramid() -> bytes:
    output = io.BytesIO()
    with tifffile.TiffWriter(output) as writer:
        writer.write(RGB, photometric="rgb", tile=(32, 32), compression="deflate", subifds=1, metadata=None)
        writer.write(RGB[::2, ::2].copy(), photometric="rgb", tile=(32, 32), subfiletype=1, metadata=None)
    return output.getvalue()


def with_exif_and_maker_note() -> bytes:
    """Maker notes hold offsets into the file: they stay readable because nothing moves."""
    encoded = bytearray(tiff(RGB, photometric="rgb", compression="deflate"))
    layout = read_layout(bytes(encoded))
    (directory,) = read_directories(bytes(encoded))
    below = {36867: Tag(2, b"1969:07:20 20:17:40\0"), 37500: Tag(7, b"AGFA\0 offsets: 1234")}
    at = len(encoded) + len(encoded) % 2
    encoded += bytes(len(encoded) % 2)
    encoded += pack_directory({34665: below}, at, directory.entries, layout)
    layout.offset.pack_into(encoded, layout.first_link_at, at)
    return bytes(encoded)


def jpeg_in_tiff() -> bytes:
    return save(RGB, "TIFF", compression="jpeg", tiffinfo={270: "Moon", 274: 6}, dpi=(600, 600))


def fax() -> bytes:
    return save(picture_of(BLACK_AND_WHITE), "TIFF", compression="group4", tiffinfo={270: "Moon", 274: 6})


def tiff_palette() -> bytes:
    return save(palette(256), "TIFF", compression="tiff_lzw", tiffinfo={270: "Moon", 274: 6})


def reversed_bits() -> bytes:
    return save(picture_of(BLACK_AND_WHITE), "TIFF", compression="raw", tiffinfo={266: 2})


def phone_photo() -> bytes:
    return save(RGB, "MPO", save_all=True, append_images=[picture_of(RGB[::-1].copy())], exif=exif_of())


def jpeg(pixels: np.ndarray | Image.Image = RGB, **options: object) -> bytes:
    return save(pixels, "JPEG", **({"exif": exif_of(), "xmp": XMP, "dpi": (600, 600), "quality": 88} | options))


def box(kind: bytes, *contents: bytes) -> bytes:
    return struct.pack(">L4s", 8 + sum(map(len, contents)), kind) + b"".join(contents)


def jp2(codestream: bytes, samples: np.ndarray, *, profile: bytes = b"", has_alpha: bool = False) -> bytes:
    """With what an archive's boxes hold: resolution, XMP, EXIF, IPTC, and one that nobody knows."""
    height_px, width_px, num_channels = np.atleast_3d(samples).shape
    size = struct.pack(">LLHBBBB", height_px, width_px, num_channels, samples.dtype.itemsize * 8 - 1, 7, 0, 0)
    colours = b"\2\0\0" + profile if profile else struct.pack(">BBBL", 1, 0, 0, 16 if num_channels > 2 else 17)
    channels = [(at, 0, at + 1) for at in range(num_channels - 1)] + [(num_channels - 1, 1, 0)]
    alpha = box(b"cdef", struct.pack(">H", num_channels), *(struct.pack(">HHH", *each) for each in channels))
    dpi = box(b"res ", box(b"resc", struct.pack(">HHHHbb", 6000, 254, 6000, 254, 3, 3)))
    return b"".join(
        (
            box(b"jP  ", b"\r\n\x87\n"),
            box(b"ftyp", b"jp2 \0\0\0\0jp2 "),
            box(b"jp2h", box(b"ihdr", size), box(b"colr", colours), alpha if has_alpha else b"", dpi),
            box(b"uuid", b"JpgTiffExif->JP2", exif_of().removeprefix(b"Exif\0\0")),
            box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), XMP),
            box(b"uuid", bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"), IPTC),
            box(b"jp2c", codestream),
            box(b"xml ", b"<box>7</box>"),
        )
    )


def codestream(samples: np.ndarray, **options: object) -> bytes:
    return save(samples, "JPEG2000", no_jp2=True, **options)


def deep_jp2(samples: np.ndarray, **about: object) -> bytes:
    return jp2(imagecodecs.jpeg2k_encode(samples, codecformat="j2k", reversible=True), samples, **about)


def ycck() -> bytes:
    """As Photoshop writes inks: inverted, their first three as YCbCr, which is made here of a CMYK file's coding by
    saying so in Adobe's segment."""
    luma_and_chroma = np.asarray(picture_of(RGB).convert("YCbCr"))
    stored = np.dstack((255 - luma_and_chroma, INKS[:, :, 3]))  # Pillow inverts
    encoded = jpeg(picture_of(stored, "CMYK"))
    at = encoded.index(b"Adobe") + 11
    return encoded[:at] + b"\2" + encoded[at + 1 :]


TABLES = "blocks without damage keep their coefficients; tables and sampling as they were"
ODD_PHOTOS = [
    OddPhoto("JPEG, 4:2:0, baseline", jpeg, "RGB, 8 bits", TABLES, False),
    OddPhoto(
        "JPEG, 4:4:4, progressive, quality 60",
        lambda: jpeg(subsampling=0, progressive=True, quality=60),
        "RGB, 8 bits",
        TABLES + "; progressive",
        False,
    ),
    OddPhoto(
        "JPEG, 4:2:2, restart markers, optimised",
        lambda: jpeg(subsampling=1, optimize=True, restart_marker_blocks=3),
        "RGB, 8 bits",
        TABLES + "; no restart markers",
        False,
    ),
    OddPhoto(
        "JPEG, grey, progressive", lambda: jpeg(GREY, progressive=True), "grey, 8 bits", TABLES + "; progressive", False
    ),
    OddPhoto("JPEG, stored as RGB", lambda: jpeg(keep_rgb=True, subsampling=0), "RGB, 8 bits", TABLES, False),
    OddPhoto(
        "JPEG, Adobe RGB, IPTC, comments",
        lambda: jpeg(icc_profile=rgb_profile("Adobe RGB"), extra=iptc_segment() + b"\xff\xfe\0\x07first"),
        "RGB, 8 bits",
        TABLES,
        False,
    ),
    OddPhoto(
        "JPEG, thumbnail in the EXIF",
        lambda: jpeg(exif=exif_with_thumbnail(), xmp=b""),
        "RGB, 8 bits",
        TABLES + "; the thumbnail is dropped",
        False,
    ),
    OddPhoto(
        "JPEG of a phone, with a second picture (MPO)",
        phone_photo,
        "RGB, 8 bits",
        TABLES + "; the second picture is dropped",
        False,
    ),
    OddPhoto(
        "JPEG, CMYK with profile",
        lambda: jpeg(picture_of(INKS, "CMYK"), icc_profile=ink_profile()),
        "CMYK, 8 bits",
        TABLES,
        False,
    ),
    OddPhoto(
        "JPEG, CMYK, 4:2:0, progressive",
        lambda: jpeg(picture_of(INKS, "CMYK"), subsampling=2, progressive=True),
        "CMYK, 8 bits",
        TABLES + "; progressive",
        False,
    ),
    OddPhoto("JPEG, YCCK", ycck, "CMYK, 8 bits", TABLES, False),
    OddPhoto("PNG, Display P3", lambda: png(RGB, icc_profile=rgb_profile("Display P3")), "RGB, 8 bits", "all chunks"),
    OddPhoto("PNG, grey + alpha", lambda: png(np.dstack((GREY, ALPHA))), "grey + alpha, 8 bits", "all chunks"),
    OddPhoto("PNG, 16-bit grey", lambda: deep_png(DEEP_GREY), "grey, 16 bits", "all chunks"),
    OddPhoto(
        "PNG, 16-bit RGB, Adobe RGB", lambda: deep_png(DEEP_RGB, rgb_profile("Adobe RGB")), "RGB, 16 bits", "all chunks"
    ),
    OddPhoto(
        "PNG, 16-bit grey + alpha",
        lambda: deep_png(np.dstack((DEEP_GREY, DEEP_ALPHA))),
        "grey + alpha, 16 bits",
        "all chunks",
    ),
    OddPhoto(
        "PNG, 16-bit RGBA", lambda: deep_png(np.dstack((DEEP_RGB, DEEP_ALPHA))), "RGB + alpha, 16 bits", "all chunks"
    ),
    OddPhoto(
        "PNG, palette of 200",
        lambda: png(palette(200)),
        "palette",
        "all chunks; fills take the palette's nearest colours",
    ),
    OddPhoto(
        "PNG, palette of 4, 2 bits, transparency",
        see_through_palette,
        "palette",
        "all chunks; fills take the nearest colours of equal opacity",
    ),
    OddPhoto("PNG, 1 bit", lambda: png(picture_of(BLACK_AND_WHITE)), "1-bit", "all chunks; fills are black or white"),
    OddPhoto(
        "PNG, 4-bit grey", lambda: png(GREY, bits=4), "4-bit grey", "all chunks; fills take the nearest of 16 levels"
    ),
    OddPhoto(
        "WebP, lossless, alpha",
        lambda: save(np.dstack((RGB, ALPHA)), "WEBP", lossless=True, exact=True, exif=exif_of(), xmp=XMP),
        "RGB + alpha, 8 bits",
        "lossless",
    ),
    OddPhoto(
        "WebP, lossy, Display P3",
        lambda: save(RGB, "WEBP", exif=exif_of(), xmp=XMP, icc_profile=rgb_profile("Display P3")),
        "RGB, 8 bits",
        "becomes lossless",
    ),
    OddPhoto(
        "TIFF, 16-bit RGB, strips, deflate, Adobe RGB",
        lambda: tiff(
            DEEP_RGB,
            photometric="rgb",
            compression="deflate",
            predictor=True,
            rowsperstrip=16,
            iccprofile=rgb_profile("Adobe RGB"),
        ),
        "RGB, 16 bits",
        "compression, strips, all tags",
    ),
    OddPhoto(
        "TIFF, 16-bit grey, big-endian, LZW",
        lambda: tiff(
            DEEP_GREY, byteorder=">", photometric="minisblack", compression="lzw", predictor=True, rowsperstrip=20
        ),
        "grey, 16 bits",
        "byte order, compression, strips, all tags",
    ),
    OddPhoto(
        "TIFF, tiles, LZW",
        lambda: tiff(RGB, photometric="rgb", compression="lzw", tile=(32, 48)),
        "RGB, 8 bits",
        "compression, tiles, all tags",
    ),
    OddPhoto(
        "TIFF, 16-bit RGB, planes of tiles, Zstandard",
        lambda: tiff(
            np.moveaxis(DEEP_RGB, 2, 0).copy(),
            photometric="rgb",
            planarconfig="separate",
            compression="zstd",
            tile=(32, 32),
        ),
        "RGB, 16 bits",
        "planes, compression, tiles, all tags",
    ),
    OddPhoto(
        "BigTIFF, 16-bit RGB, uncompressed",
        lambda: tiff(DEEP_RGB, bigtiff=True, photometric="rgb", rowsperstrip=10),
        "RGB, 16 bits",
        "BigTIFF, strips, all tags",
    ),
    OddPhoto(
        "BigTIFF, big-endian, tiles",
        lambda: tiff(GREY, bigtiff=True, byteorder=">", photometric="minisblack", tile=(32, 32), compression="deflate"),
        "grey, 8 bits",
        "BigTIFF, byte order, tiles, all tags",
    ),
    OddPhoto(
        "TIFF, 16-bit grey + alpha, LZMA",
        lambda: tiff(
            np.dstack((DEEP_GREY, DEEP_ALPHA)),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"],
            compression="lzma",
        ),
        "grey + alpha, 16 bits",
        "compression, all tags",
    ),
    OddPhoto(
        "TIFF, RGBA, PackBits",
        lambda: tiff(np.dstack((RGB, ALPHA)), photometric="rgb", extrasamples=["unassalpha"], compression="packbits"),
        "RGB + alpha, 8 bits",
        "compression, all tags",
    ),
    OddPhoto(
        "TIFF, CMYK with profile",
        lambda: tiff(INKS, photometric="separated", compression="lzw", iccprofile=ink_profile()),
        "CMYK, 8 bits",
        "compression, all tags; fills go through the profile",
    ),
    OddPhoto(
        "TIFF, 16-bit CMYK without profile",
        lambda: tiff(INKS.astype(np.uint16) * 257, photometric="separated"),
        "CMYK, 16 bits",
        "all tags; fills as Pillow converts",
    ),
    OddPhoto(
        "TIFF, 16-bit grey, white is zero",
        lambda: tiff(65535 - DEEP_GREY, photometric="miniswhite"),
        "grey, 16 bits",
        "white is zero, all tags",
    ),
    OddPhoto(
        "TIFF, palette, LZW", tiff_palette, "palette", "compression, all tags; fills take the palette's nearest colours"
    ),
    OddPhoto(
        "TIFF, 1 bit, white is zero",
        lambda: tiff(BLACK_AND_WHITE, photometric="miniswhite"),
        "1-bit",
        "white is zero, all tags; fills are black or white",
    ),
    OddPhoto("TIFF, 1 bit, fax group 4", fax, "1-bit", "all tags; becomes deflate; fills are black or white"),
    OddPhoto(
        "TIFF, 1 bit, reversed bits",
        reversed_bits,
        "1-bit",
        "all tags but FillOrder; becomes deflate; fills are black or white",
    ),
    OddPhoto("TIFF, JPEG inside", jpeg_in_tiff, "RGB, 8 bits", "all tags but JPEG's; becomes deflate"),
    OddPhoto(
        "TIFF, three pages, each of another kind", mixed_pages, "RGB, 8 bits", "every page; only damaged ones change"
    ),
    OddPhoto("TIFF, tiles with a pyramid", with_pyramid, "RGB, 8 bits", "compression, tiles; the pyramid is dropped"),
    OddPhoto("TIFF, EXIF with a maker note", with_exif_and_maker_note, "RGB, 8 bits", "EXIF, maker note, all tags"),
    OddPhoto(
        "JPEG 2000, reversible, tiles, Adobe RGB",
        lambda: jp2(codestream(RGB, tile_size=(64, 64)), RGB, profile=rgb_profile("Adobe RGB")),
        "RGB, 8 bits",
        "all boxes; reversible; in one tile",
    ),
    OddPhoto(
        "JPEG 2000, irreversible (lossy)",
        lambda: jp2(codestream(RGB, irreversible=True, quality_mode="rates", quality_layers=[9]), RGB),
        "RGB, 8 bits",
        "all boxes; becomes reversible",
    ),
    OddPhoto("JPEG 2000, 16-bit grey", lambda: deep_jp2(DEEP_GREY), "grey, 16 bits", "all boxes; reversible"),
    OddPhoto(
        "JPEG 2000, 16-bit RGBA",
        lambda: deep_jp2(np.dstack((DEEP_RGB, DEEP_ALPHA)), has_alpha=True),
        "RGB + alpha, 16 bits",
        "all boxes; reversible",
    ),
    OddPhoto(
        "JPEG 2000, a bare codestream",
        lambda: codestream(GREY),
        "grey, 8 bits",
        "a bare codestream, reversible; without a history entry, for which it has no room",
    ),
]
