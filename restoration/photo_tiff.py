"""TIFF: one page of 8-bit grey or RGB, with or without straight alpha, written back losslessly.

Kept: the compression where it is lossless (none, LZW, deflate, PackBits, Zstandard, LZMA) with its predictor; and,
value for value, the tags that describe the photo: resolution, orientation, EXIF, GPS, ICC, XMP, IPTC, texts.
JPEG and other lossy compressions are written as deflate, because a second lossy pass would change undamaged samples.
Not kept: tiles, planes, strip height, byte order and fill order, BigTIFF, white-is-zero (the samples are turned),
thumbnails, tags not named here. Maker notes are copied, but offsets that they hold into the file are lost.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_metadata import Metadata, OpenedPhoto
from restoration.photo_tags import (
    BYTE,
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    LONG,
    ORIENTATION,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    UNDEFINED,
    X_RESOLUTION,
    Y_RESOLUTION,
    Tag,
    Tags,
    pack_directory,
    pack_tags,
    read_tags,
)

_NEW_SUBFILE_TYPE = 254
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT, _EXTRA_SAMPLES, _PREDICTOR = 258, 259, 262, 339, 338, 317
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_STRAIGHT_ALPHA = 2
_MAX_PIECES = 1 << 17  # strips or tiles: Pillow takes microseconds for each; 120 megapixels in 32 x 32 tiles

_RESOLUTION = (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)
_TEXTS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)  # titles, camera, page, software, date, people, rights
_WINDOWS = (18246, 18249, 40091, 40092, 40093, 40094, 40095)  # its Explorer's rating, title, comment ...
_COLOURS = (318, 319)  # white point, primaries
_DESCRIPTIVE_TAGS = frozenset((*_RESOLUTION, *_TEXTS, *_WINDOWS, *_COLOURS, ORIENTATION, EXIF_DIRECTORY, GPS_DIRECTORY))
_KEPT_TAGS = _DESCRIPTIVE_TAGS | {_XMP, _IPTC, _PHOTOSHOP, _ICC}
_LAYOUT_TAGS = frozenset(
    (
        _NEW_SUBFILE_TYPE,
        _BITS,
        _COMPRESSION,
        _SAMPLE_FORMAT,
        _EXTRA_SAMPLES,
        _PREDICTOR,
        _STRIP_OFFSETS,
        _TILE_OFFSETS,
    )
)
_LOSSLESS = {
    1: "raw",
    5: "tiff_lzw",
    8: "tiff_adobe_deflate",
    32946: "tiff_adobe_deflate",
    32773: "packbits",
    34925: "lzma",
    50000: "zstd",
}
_WITH_PREDICTOR = ("tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma")


@dataclass(frozen=True)
class TiffTraits:
    """compression: Pillow's name of the one to write; predictor: 1 none, 2 horizontal."""

    compression: str
    is_lossless: bool
    predictor: int
    tags: Tags


class _StoredGridTiff(TiffImagePlugin.TiffImageFile):
    """Pillow's reader, less two things: it turns the picture by its orientation tag, and it holds every photo to one
    limit of pixels for the process, by a warning."""

    def _setup(self) -> None:
        super()._setup()
        self._size = self._tile_size

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self.size).im
        super().load_prepare()

    def load_end(self) -> None:
        pass


def open_tiff(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    layout = read_tags(encoded, _LAYOUT_TAGS, is_strict=True)
    _check_layout(layout)
    file = _StoredGridTiff(io.BytesIO(encoded))
    check_size(file.height, file.width)
    tags = read_tags(encoded, _KEPT_TAGS)
    compression = _numbers(layout, _COMPRESSION, (1,))[0]
    traits = TiffTraits(
        compression=_LOSSLESS.get(compression, "tiff_adobe_deflate"),
        is_lossless=compression in _LOSSLESS,
        predictor=_numbers(layout, _PREDICTOR, (1,))[0],
        tags=tags,
    )
    exif = {number: tag for number, tag in tags.items() if number in _DESCRIPTIVE_TAGS}
    return OpenedPhoto(file, traits, exif=pack_tags(exif))


def write_tiff(picture: Image.Image, metadata: Metadata, traits: TiffTraits | None) -> bytes:
    """picture: L, LA, RGB or RGBA; written losslessly, compressed as before or, without traits, by deflate."""
    compression = traits.compression if traits else "tiff_adobe_deflate"
    predictor = traits.predictor if traits else 2
    output = io.BytesIO()
    # A plain file first, then its directory anew: libtiff, through Pillow, takes no EXIF and guesses types.
    picture.save(
        output,
        "TIFF",
        compression=compression,
        tiffinfo={_PREDICTOR: 2} if predictor == 2 and compression in _WITH_PREDICTOR else {},
    )
    _replace_directory(output, traits.tags if traits else _tags_from_metadata(metadata))
    return output.getvalue()


def _numbers(tags: Tags, number: int, default: tuple[int, ...]) -> tuple[int, ...]:
    tag = tags.get(number)
    if not isinstance(tag, Tag):
        return default
    return (tag.numbers() if tag.type in (BYTE, SHORT, LONG) else ()) or default


def _check_layout(layout: Tags) -> None:
    """Pillow reads 16-bit RGB as 8-bit, drops unspecified channels and divides premultiplied alpha out, silently."""
    if not {_STRIP_OFFSETS, _TILE_OFFSETS} & layout.keys():
        raise PhotoUndecodable(
            "the TIFF's directory names no picture: it is truncated or damaged; send it again, whole"
        )
    if _numbers(layout, _NEW_SUBFILE_TYPE, (0,))[0] & 1:
        raise UnsupportedPhoto(
            "the TIFF's first picture is a reduced copy, as in raw camera files, and the photo itself is elsewhere "
            "in the file; convert it to a plain TIFF"
        )
    for pieces in (layout.get(_STRIP_OFFSETS), layout.get(_TILE_OFFSETS)):
        if isinstance(pieces, Tag) and pieces.num_values > _MAX_PIECES:
            raise PhotoUndecodable(
                f"the TIFF is cut into {pieces.num_values:,} pieces; at most {_MAX_PIECES:,} are read"
            )
    bits = _numbers(layout, _BITS, (1,))
    if set(bits) != {8}:
        raise UnsupportedPhoto(
            f"the TIFF has {' + '.join(map(str, bits[:8]))} bits a pixel, but only 8 bits a channel are taken; "
            "save it with 8 bits a channel"
        )
    if set(_numbers(layout, _SAMPLE_FORMAT, (1,))) != {1}:
        raise UnsupportedPhoto("the TIFF's samples are not unsigned whole numbers, and only those are taken")
    extra_channels = _numbers(layout, _EXTRA_SAMPLES, ())
    if extra_channels not in ((), (_STRAIGHT_ALPHA,)):
        raise UnsupportedPhoto(
            f"the TIFF has extra channels of the kinds {extra_channels[:8]} (0 unspecified, 1 premultiplied alpha, 2 "
            "straight alpha), but one of straight alpha is all that is taken; save it without, or with straight alpha"
        )


def _replace_directory(output: io.BytesIO, tags: Tags) -> None:
    """Appends a directory with the written file's entries and `tags`, and makes it the file's first."""
    written = output.getbuffer()
    (offset,) = struct.unpack_from("<L", written, 4)
    (num_tags,) = struct.unpack_from("<H", written, offset)
    packed = [bytes(written[start : start + 12]) for start in range(offset + 2, offset + 2 + 12 * num_tags, 12)]
    written.release()
    entries = {struct.unpack_from("<H", entry)[0]: entry for entry in packed}
    end = output.seek(0, io.SEEK_END)
    output.write(b"\0" * (end % 2))
    new_offset = end + end % 2
    output.write(pack_directory(tags, new_offset, entries))
    output.seek(4)
    output.write(struct.pack("<L", new_offset))


def _tags_from_metadata(metadata: Metadata) -> Tags:
    tags = read_tags(metadata.exif, _DESCRIPTIVE_TAGS) if metadata.exif else {}
    if metadata.icc_profile:
        tags[_ICC] = Tag(UNDEFINED, metadata.icc_profile)
    if metadata.xmp:
        tags[_XMP] = Tag(BYTE, metadata.xmp)
    if metadata.dpi and not {X_RESOLUTION, Y_RESOLUTION} <= tags.keys():
        for number, dpi in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            tags[number] = Tag(RATIONAL, struct.pack("<LL", round(dpi * 1000), 1000))
        tags[RESOLUTION_UNIT] = Tag(SHORT, struct.pack("<H", 2))
    return tags
