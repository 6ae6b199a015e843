"""JPEG: the first picture of the file, written back with the same tables and the same metadata.

Kept: quantisation tables, chroma subsampling (an unusual layout becomes 4:4:4), progressive or baseline, samples
stored as RGB, density, and every APPn and comment segment byte for byte: EXIF, XMP, extended XMP, ICC, IPTC.
Not kept: thumbnails (EXIF, JFXX), further pictures of the file (MPO, depth, gain maps), arithmetic coding and
restart markers, optimised Huffman tables.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, JpegImagePlugin

from restoration.errors import PhotoUndecodable
from restoration.photo_metadata import Metadata, OpenedPhoto
from restoration.photo_tags import without_thumbnail

DEFAULT_QUALITY = 95
MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION

_MAX_SEGMENTS = 2048
_MAX_JUNK_BYTES = 65_536
_MAX_PAYLOAD_BYTES = 65_533
_EXIF_PREFIX = b"Exif\0\0"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_START_OF_SCAN, _COMMENT, _APP0, _APP2, _APP14, _APP15 = 0xDA, 0xFE, 0xE0, 0xE2, 0xEE, 0xEF


@dataclass(frozen=True)
class JpegTraits:
    """quantisation_tables: one of 64 per component, shared ones at the end left out; subsampling: Pillow's 0 4:4:4,
    1 4:2:2, 2 4:2:0, -1 grey; segments: as they stand in the file; density: JFIF's unit, horizontal, vertical."""

    quantisation_tables: tuple[tuple[int, ...], ...]
    subsampling: int
    is_progressive: bool
    is_stored_as_rgb: bool
    segments: bytes
    density: tuple[int, int, int] | None


class _Segment(NamedTuple):
    marker: int
    payload: bytes


class _PlainJpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's reader of one picture (Image.open would make an MPO of two), less its look into EXIF for the
    resolution, which broken EXIF makes it warn about."""

    def _read_dpi_from_exif(self) -> None:
        pass


def open_jpeg(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    # Before Pillow reads the header, which takes it microseconds a byte or segment: a file of nothing else would
    # keep it busy for minutes.
    segments = b"".join(_pack_segment(segment) for segment in _read_segments(encoded) if _is_kept(segment))
    file = _PlainJpeg(io.BytesIO(encoded))
    check_size(file.height, file.width)
    return OpenedPhoto(file, _read_traits(file, segments))


def write_jpeg(picture: Image.Image, metadata: Metadata, traits: JpegTraits | None, quality: int | None) -> bytes:
    """picture: L or RGB. With traits it is written as they say (quality, if given, replaces the tables); without, at
    `quality` or 95, 4:4:4, with the metadata that fit JPEG's segments of 64 KiB (ICC profiles may take many)."""
    output = io.BytesIO()
    if traits is None:
        quality = quality or DEFAULT_QUALITY
        picture.save(output, "JPEG", quality=quality, subsampling=0, **_metadata_options(metadata))
        return output.getvalue()
    tables = [list(table) for table in traits.quantisation_tables]
    picture.save(
        output,
        "JPEG",
        subsampling=traits.subsampling,
        progressive=traits.is_progressive,
        keep_rgb=traits.is_stored_as_rgb,
        extra=traits.segments,
        **({"qtables": tables} if quality is None else {"quality": quality}),
    )
    if traits.density is not None:
        _set_density(output, traits.density)
    return output.getvalue()


def _read_segments(encoded: bytes) -> Iterator[_Segment]:
    position, num_junk_bytes = 2, 0
    for _ in range(_MAX_SEGMENTS):
        start = encoded.find(b"\xff", position)
        num_junk_bytes += start - position
        if start < 0 or num_junk_bytes > _MAX_JUNK_BYTES or start + 4 > len(encoded):
            break
        marker = encoded[start + 1]
        if marker == _START_OF_SCAN:
            return
        if marker in (0x00, 0xFF) or marker == 0x01 or 0xD0 <= marker <= 0xD9:  # fill bytes; markers without payload
            num_junk_bytes += 1
            position = start + (1 if marker == 0xFF else 2)
            continue
        (num_bytes,) = struct.unpack_from(">H", encoded, start + 2)
        position = start + 2 + num_bytes
        yield _Segment(marker, encoded[start + 4 : position])
    raise PhotoUndecodable(
        f"the JPEG's header does not lead to a picture within {_MAX_SEGMENTS:,} segments and "
        f"{_MAX_JUNK_BYTES:,} stray bytes: the file is truncated or damaged; send it again from the original"
    )


def _is_kept(segment: _Segment) -> bool:
    marker, payload = segment
    if marker == _APP0:  # the encoder writes its own JFIF; JFXX is a thumbnail
        return not payload.startswith((b"JFIF\0", b"JFXX\0"))
    if marker == _APP2:  # the list of further pictures, by offset
        return not payload.startswith(b"MPF\0")
    if marker == _APP14:  # the colour transform, which the encoder states itself
        return not payload.startswith(b"Adobe")
    return marker == _COMMENT or _APP0 < marker <= _APP15


def _pack_segment(segment: _Segment) -> bytes:
    marker, payload = segment
    if payload.startswith(_EXIF_PREFIX):
        payload = _EXIF_PREFIX + without_thumbnail(payload.removeprefix(_EXIF_PREFIX))
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _read_traits(file: JpegImagePlugin.JpegImageFile, segments: bytes) -> JpegTraits:
    tables = [tuple(file.quantization[table]) for _, _, _, table in file.layer]
    while len(tables) > 1 and tables[-1] == tables[-2]:  # the encoder gives its last table to all further components
        tables.pop()
    subsampling = JpegImagePlugin.get_sampling(file)
    is_stored_as_rgb = _is_stored_as_rgb(file)
    if (subsampling < 0 and file.mode != "L") or is_stored_as_rgb:  # libjpeg writes RGB at full resolution only
        subsampling = 0
    density = (file.info["jfif_unit"], *file.info["jfif_density"]) if "jfif_density" in file.info else None
    return JpegTraits(
        quantisation_tables=tuple(tables),
        subsampling=subsampling,
        is_progressive="progressive" in file.info,
        is_stored_as_rgb=is_stored_as_rgb,
        segments=segments,
        density=density,
    )


def _is_stored_as_rgb(file: JpegImagePlugin.JpegImageFile) -> bool:
    """libjpeg's rule (jdapimin.c, default_decompress_parms)."""
    if file.mode != "RGB" or "jfif" in file.info:
        return False
    if "adobe_transform" in file.info:
        return bool(file.info["adobe_transform"] == 0)
    return bytes(component[0] for component in file.layer) == b"RGB"


def _set_density(output: io.BytesIO, density: tuple[int, int, int]) -> None:
    """Pillow only takes whole dots an inch; JFIF also has centimetres and a bare aspect ratio."""
    written = output.getbuffer()
    if bytes(written[2:4]) == b"\xff\xe0" and bytes(written[6:11]) == b"JFIF\0":
        struct.pack_into(">BHH", written, 13, *density)


def _metadata_options(metadata: Metadata) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if metadata.icc_profile and len(metadata.icc_profile) <= 255 * (_MAX_PAYLOAD_BYTES - 14):
        options["icc_profile"] = metadata.icc_profile
    if metadata.exif and len(_EXIF_PREFIX + metadata.exif) <= _MAX_PAYLOAD_BYTES:
        options["exif"] = _EXIF_PREFIX + metadata.exif
    if metadata.xmp and len(_XMP_PREFIX + metadata.xmp) <= _MAX_PAYLOAD_BYTES:
        options["xmp"] = metadata.xmp
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    return options
