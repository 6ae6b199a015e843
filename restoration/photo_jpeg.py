"""JPEG: the first picture of the file, written back with the same tables and the same metadata.

Kept: the coefficients of every 8 x 8 block in which nothing has changed; quantisation tables, chroma subsampling,
progressive or baseline, samples stored as RGB, and every APPn and comment segment byte for byte: JFIF, EXIF, XMP,
extended XMP, ICC, IPTC.
Not kept: thumbnails (JFIF, JFXX, EXIF, Photoshop's, XMP's but for its extension), further pictures of the file (MPO,
depth, gain maps), arithmetic coding and restart markers, Huffman tables (they are optimised).
Components whose sizes are no whole multiples are encoded anew as a whole, with the same tables. The same goes for
another size or quality. CMYK and YCCK are written in one scan a component. What was denoised is encoded anew as a
whole, with tables of quality 95 unless its own are finer.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from PIL import JpegImagePlugin

from restoration.errors import PhotoUndecodable
from restoration.jpeg_coefficients import ColourSpace, Component, Layout, replace_samples
from restoration.photo_colours import Bytes, ColourModel, Direct, usable_cmyk
from restoration.photo_history import History, add_history
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_pillow import Plain, buffer_of, read_samples, to_picture
from restoration.photo_tags import EXIF_PREFIX, ORIENTATION, SHORT, Tag, pack_tags, without_thumbnail
from restoration.photo_thumbnails import without_resource_thumbnail, without_xmp_thumbnail

DEFAULT_QUALITY = 95
MAX_SIDE_PX = 65_500  # libjpeg's JPEG_MAX_DIMENSION

_SUM_OF_FINE_TABLE = 369  # of libjpeg's first table at a quality of 95
_MAX_SEGMENTS = 2048
_MAX_JUNK_BYTES = 65_536
_MAX_PAYLOAD_BYTES = 65_533
_JFIF_PREFIX = b"JFIF\0"
_THUMBNAIL_SIZE_AT = 12  # in JFIF's segment: width and height, a byte each
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_RESOURCE_PREFIX = b"Photoshop 3.0\0"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _COMMENT, _APP0, _APP1, _APP2, _APP13, _APP14, _APP15 = 0xDA, 0xFE, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF


class Segment(NamedTuple):
    """A piece of the header."""

    marker: int
    payload: bytes


@dataclass(frozen=True)
class JpegTraits:
    """layout: None for what is encoded anew as a whole; subsampling: Pillow's 0 4:4:4, 1 4:2:2, 2 4:2:0, -1 grey;
    quantisation_tables: one of 64 per component, shared ones at the end left out; segments: APPn and comments, as they
    stand in the file, less thumbnails."""

    layout: Layout | None
    quantisation_tables: tuple[tuple[int, ...], ...]
    subsampling: int
    is_progressive: bool
    is_stored_as_rgb: bool
    segments: tuple[Segment, ...]
    is_lossless: ClassVar[bool] = False


class _PlainJpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's reader of one picture (Image.open would make an MPO of two), less its look into EXIF for the
    resolution, which broken EXIF makes it warn about."""

    def _read_dpi_from_exif(self) -> None:
        pass


def open_jpeg(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    # Before Pillow reads the header, which takes it microseconds a byte or segment: a file of nothing else would
    # keep it busy for minutes.
    kept = [_without_thumbnail(segment) for segment in _read_segments(encoded) if _is_kept(segment)]
    segments = tuple(_without_resource_thumbnail(kept))
    file = _PlainJpeg(io.BytesIO(encoded))
    check_size(file.height, file.width)
    metadata = read_metadata(file.info)
    colours = _colours_of(file, metadata)
    return OpenedPhoto(
        file.height, file.width, colours, lambda: read_samples(file), metadata, _read_traits(file, segments)
    )


def write_jpeg(plain: Plain, metadata: Metadata, quality: int | None, history: History | None = None) -> bytes:
    """plain: 8-bit L, RGB or CMYK; written at `quality` or 95, 4:4:4, with the metadata that fit JPEG's segments of
    64 KiB (ICC profiles may take many). Of longer EXIF the orientation is kept, without which it would lie askew."""
    output = io.BytesIO()
    if history:
        metadata = replace(metadata, xmp=_add_fitting_history(metadata.xmp or b"", history))
    to_picture(plain).save(
        output, "JPEG", quality=quality or DEFAULT_QUALITY, subsampling=0, **_metadata_options(metadata)
    )
    return output.getvalue()


def rewrite_jpeg(
    encoded: bytes, traits: JpegTraits, before: Bytes, after: Bytes, history: History | None = None
) -> bytes:
    """`encoded`, whose samples are `before`, with the samples `after`, (H, W, C) uint8 each."""
    written = replace_samples(encoded, traits.layout, before, after) if traits.layout else None
    if written is None:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[after.shape[2]]
        return reencode_jpeg(Plain(after, mode), traits, history=history)
    return _with_segments(written, _with_history(traits.segments, history))


def quality_without_artifacts(traits: JpegTraits) -> int | None:
    """At which to encode anew what a denoiser made of the JPEG; None for its own tables, if they are fine enough."""
    return DEFAULT_QUALITY if sum(traits.quantisation_tables[0]) > _SUM_OF_FINE_TABLE else None


def reencode_jpeg(
    plain: Plain, traits: JpegTraits, quality: int | None = None, history: History | None = None
) -> bytes:
    """plain: 8-bit L, RGB or CMYK, encoded anew as the traits say; quality, if given, replaces the tables."""
    output = io.BytesIO()
    tables = [list(table) for table in traits.quantisation_tables]
    with buffer_of(_most_bytes(plain.samples.shape)) if traits.is_progressive else nullcontext():
        to_picture(plain).save(
            output,
            "JPEG",
            subsampling=traits.subsampling,
            progressive=traits.is_progressive,
            keep_rgb=traits.is_stored_as_rgb,
            **({"qtables": tables} if quality is None else {"quality": quality}),
        )
    written = output.getvalue()
    transform = [segment for segment in _read_segments(written) if _is_colour_transform(segment)]
    others = [segment for segment in _with_history(traits.segments, history) if not _is_colour_transform(segment)]
    first = sum(segment.payload.startswith(_JFIF_PREFIX) for segment in others)  # it must come before everything
    return _with_segments(written, [*others[:first], *transform, *others[first:]])


def _most_bytes(shape: tuple[int, ...]) -> int:
    """What a progressive JPEG of (H, W, C) samples takes at most, which libjpeg must be able to write in one piece: of
    noise in blocks of 8 x 8, filled up at the edges, 1.2 bytes a sample were the most (measured, at a quality of 100).
    """
    height_px, width_px, num_channels = shape
    return 2 * (height_px + 7) * (width_px + 7) * num_channels


def _with_segments(written: bytes, segments: Iterable[Segment]) -> bytes:
    """An encoder's file with these segments in place of its own metadata."""
    header, picture_at = [_pack_segment(segment) for segment in segments], 0
    for segment, end in _walk_segments(written):
        picture_at = end
        if not _is_metadata(segment):
            header.append(_pack_segment(segment))
    return b"".join((written[:2], *header, written[picture_at:]))


def _colours_of(file: JpegImagePlugin.JpegImageFile, metadata: Metadata) -> ColourModel:
    if file.mode != "CMYK":
        return Direct(num_colours=len(file.getbands()), has_alpha=False)
    return usable_cmyk(metadata.icc_profile)


def claimed_size(encoded: bytes) -> tuple[int, int]:
    """Height and width in pixels that the header claims. Raises PhotoUndecodable."""
    for segment in _read_segments(encoded):
        if segment.marker in _START_OF_FRAME and len(segment.payload) >= 5:
            height_px, width_px = struct.unpack_from(">HH", segment.payload, 1)
            return height_px, width_px
    raise PhotoUndecodable("a JPEG claims no size: it is damaged; send it again from the original")


def _read_segments(encoded: bytes) -> Iterator[Segment]:
    return (segment for segment, _ in _walk_segments(encoded))


def _walk_segments(encoded: bytes) -> Iterator[tuple[Segment, int]]:
    """The header's segments, and where each ends."""
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
        yield Segment(marker, encoded[start + 4 : position]), position
    raise PhotoUndecodable(
        f"the JPEG's header does not lead to a picture within {_MAX_SEGMENTS:,} segments and "
        f"{_MAX_JUNK_BYTES:,} stray bytes: the file is truncated or damaged; send it again from the original"
    )


def _is_metadata(segment: Segment) -> bool:
    return segment.marker == _COMMENT or _APP0 <= segment.marker <= _APP15


def _is_kept(segment: Segment) -> bool:
    """JFXX is a thumbnail, MPF the list of further pictures, by offset."""
    stale = {_APP0: b"JFXX\0", _APP2: b"MPF\0"}.get(segment.marker)
    return _is_metadata(segment) and not (stale and segment.payload.startswith(stale))


def _is_colour_transform(segment: Segment) -> bool:
    """Adobe's, which says how the components are stored."""
    return segment.marker == _APP14 and segment.payload.startswith(b"Adobe")


def _without_thumbnail(segment: Segment) -> Segment:
    if segment.payload.startswith(_JFIF_PREFIX) and any(segment.payload[_THUMBNAIL_SIZE_AT:][:2]):
        return segment._replace(payload=segment.payload[:_THUMBNAIL_SIZE_AT] + bytes(2))
    for prefix, cut in ((EXIF_PREFIX, without_thumbnail), (_XMP_PREFIX, without_xmp_thumbnail)):
        if segment.payload.startswith(prefix):
            return segment._replace(payload=prefix + cut(segment.payload.removeprefix(prefix)))
    return segment


def _without_resource_thumbnail(segments: Sequence[Segment]) -> Sequence[Segment]:
    """Photoshop's resources may go on from one segment to the next."""
    is_resource = [segment.marker == _APP13 and segment.payload.startswith(_RESOURCE_PREFIX) for segment in segments]
    if not any(is_resource):
        return segments
    pieces = [segment.payload for segment, is_one in zip(segments, is_resource, strict=True) if is_one]
    block = b"".join(piece.removeprefix(_RESOURCE_PREFIX) for piece in pieces)
    kept = without_resource_thumbnail(block)
    if kept == block:
        return segments
    room = _MAX_PAYLOAD_BYTES - len(_RESOURCE_PREFIX)
    anew = [Segment(_APP13, _RESOURCE_PREFIX + kept[at : at + room]) for at in range(0, len(kept), room)]
    first = is_resource.index(True)
    others = [segment for segment, is_one in zip(segments[first:], is_resource[first:], strict=True) if not is_one]
    return [*segments[:first], *anew, *others]


def _with_history(segments: Sequence[Segment], history: History | None) -> Sequence[Segment]:
    """In the XMP, or in one of its own behind what should stand first (JFIF, EXIF)."""
    if history is None:
        return segments
    is_xmp = [segment.marker == _APP1 and segment.payload.startswith(_XMP_PREFIX) for segment in segments]
    at = is_xmp.index(True) if any(is_xmp) else None
    xmp = segments[at].payload.removeprefix(_XMP_PREFIX) if at is not None else None
    segment = Segment(_APP1, _XMP_PREFIX + _add_fitting_history(xmp or b"", history))
    if at is not None:
        return [*segments[:at], segment, *segments[at + 1 :]]
    first = sum(segment.payload.startswith((_JFIF_PREFIX, EXIF_PREFIX)) for segment in segments)
    return [*segments[:first], segment, *segments[first:]]


def _add_fitting_history(xmp: bytes, history: History) -> bytes:
    """The XMP with the entry, or without where a segment has no room for both."""
    longer = add_history(xmp, history)
    return longer if len(_XMP_PREFIX + longer) <= _MAX_PAYLOAD_BYTES else xmp


def _pack_segment(segment: Segment) -> bytes:
    return struct.pack(">BBH", 0xFF, segment.marker, len(segment.payload) + 2) + segment.payload


def _read_traits(file: JpegImagePlugin.JpegImageFile, segments: tuple[Segment, ...]) -> JpegTraits:
    tables = [tuple(file.quantization[table]) for _, _, _, table in file.layer]
    layout = _layout_of(file, tables)
    while len(tables) > 1 and tables[-1] == tables[-2]:  # the encoder gives its last table to all further components
        tables.pop()
    subsampling = JpegImagePlugin.get_sampling(file)
    is_stored_as_rgb = _is_stored_as_rgb(file)
    if (subsampling < 0 and file.mode != "L") or is_stored_as_rgb:  # libjpeg writes RGB at full resolution only
        subsampling = 0
    return JpegTraits(
        layout=layout if layout.is_whole else None,
        quantisation_tables=tuple(tables),
        subsampling=subsampling,
        is_progressive="progressive" in file.info,
        is_stored_as_rgb=is_stored_as_rgb,
        segments=segments,
    )


def _layout_of(file: JpegImagePlugin.JpegImageFile, tables: Sequence[tuple[int, ...]]) -> Layout:
    components = [
        Component(horizontal, vertical, table)
        for (_, horizontal, vertical, _), table in zip(file.layer, tables, strict=True)
    ]
    return Layout(file.height, file.width, tuple(components), _colour_space_of(file), "progressive" in file.info)


def _colour_space_of(file: JpegImagePlugin.JpegImageFile) -> ColourSpace:
    """libjpeg's rule (jdapimin.c, default_decompress_parms): of inks, those that Adobe did not say are plain."""
    if file.mode == "L":
        return "grey"
    if file.mode == "CMYK":
        return "YCCK" if file.info.get("adobe_transform", 0) else "CMYK"
    return "RGB" if _is_stored_as_rgb(file) else "YCbCr"


def _is_stored_as_rgb(file: JpegImagePlugin.JpegImageFile) -> bool:
    """libjpeg's rule (jdapimin.c, default_decompress_parms)."""
    if file.mode != "RGB" or "jfif" in file.info:
        return False
    if "adobe_transform" in file.info:
        return bool(file.info["adobe_transform"] == 0)
    return bytes(component[0] for component in file.layer) == b"RGB"


def _metadata_options(metadata: Metadata) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if metadata.icc_profile and len(metadata.icc_profile) <= 255 * (_MAX_PAYLOAD_BYTES - 14):
        options["icc_profile"] = metadata.icc_profile
    if metadata.exif:
        exif = EXIF_PREFIX + metadata.exif
        options["exif"] = exif if len(exif) <= _MAX_PAYLOAD_BYTES else EXIF_PREFIX + _orientation_alone(metadata)
    if metadata.xmp and len(_XMP_PREFIX + metadata.xmp) <= _MAX_PAYLOAD_BYTES:
        options["xmp"] = metadata.xmp
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    return options


def _orientation_alone(metadata: Metadata) -> bytes:
    return pack_tags({ORIENTATION: Tag(SHORT, struct.pack("<H", metadata.orientation))})
