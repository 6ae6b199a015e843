"""JPEG 2000, as a file (JP2) or a bare codestream: written back losslessly, by the reversible 5/3 transform.

Kept, byte for byte: every box beside the codestream: colour (ICC profile), resolution, XMP, EXIF, IPTC, unknown ones;
the number of resolutions. Not kept: thumbnails (EXIF, XMP, Photoshop's), how the codestream was cut (tiles,
precincts, layers), the irreversible 9/7 transform (the file grows: a second lossy pass would change undamaged samples).
A bare codestream has no room for metadata, nor for a history entry.
Format: ISO/IEC 15444-1, annexes A (codestream) and I (boxes).
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagecodecs
import numpy as np

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_colours import ColourModel, Direct, Samples
from restoration.photo_history import History, add_history
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_pillow import Plain
from restoration.photo_tags import without_thumbnail
from restoration.photo_thumbnails import without_resource_thumbnail, without_xmp_thumbnail

_CODESTREAM = b"\xff\x4f\xff\x51"
_SIZE, _CODING, _CAPABILITIES, _START_OF_TILE = 0xFF51, 0xFF52, 0xFF50, 0xFF90
_PART_2 = 0x8000  # of Rsiz: extensions
_REVERSIBLE = 1
_HEADER, _PICTURE, _UUID = b"jp2h", b"jp2c", b"uuid"
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_ID = b"JpgTiffExif->JP2"
_RESOURCE_ID = bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb")  # Photoshop's
_BY_NUMBER, _BY_PROFILE = 1, (2, 3)  # methods of a colr box
_SRGB, _GREY = 16, 17
_COLOUR, _OPACITY = 0, 1  # types of channels in a cdef box
_MAX_BOXES, _MAX_MARKERS = 4096, 1024
# What the decoder makes room for before it reads a sample: kilobytes a tile, entries a precinct and layer
_MAX_TILES, _MAX_LAYERS, _LEAST_PRECINCT = 8192, 1024, 5
_MAX_RESOLUTIONS = 33
_DEFAULT_RESOLUTIONS = 6


class Box(NamedTuple):
    """data: without the box's own header; of the codestream's box nothing."""

    type: bytes
    data: bytes


class Header(NamedTuple):
    """What a codestream says before its first tile. bits: of each component."""

    height_px: int
    width_px: int
    bits: tuple[int, ...]
    num_resolutions: int
    is_reversible: bool


@dataclass(frozen=True)
class Jpeg2000Traits:
    """boxes: of the file, in their order, less thumbnails; none around a bare codestream. is_lossless: whether the
    transform was the reversible one."""

    boxes: tuple[Box, ...]
    num_resolutions: int
    is_lossless: bool


def open_jpeg2000(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    boxes, codestream = _read_file(encoded)
    header = _read_header(codestream)
    check_size(header.height_px, header.width_px)
    in_header = list(_read_boxes(_first(boxes, _HEADER) or b""))
    colours = _colours_of(header, [(box.type, box.data) for box, _ in in_header])
    return OpenedPhoto(
        header.height_px,
        header.width_px,
        colours,
        lambda: _read_samples(codestream, header),
        _read_metadata(boxes, [box for box, _ in in_header]),
        Jpeg2000Traits(boxes, header.num_resolutions, header.is_reversible),
    )


def rewrite_jpeg2000(samples: Samples, traits: Jpeg2000Traits, history: History | None = None) -> bytes:
    """samples: (H, W, C) of the kind that the photo came in."""
    codestream = _encode(samples, traits.num_resolutions)
    return _pack_file(_with_history(traits.boxes, history), codestream) if traits.boxes else codestream


def write_jpeg2000(plain: Plain, metadata: Metadata, *, is_bare: bool = False) -> bytes:
    """plain: L, LA, RGB or RGBA of 8 or 16 bits; written losslessly. is_bare: a codestream alone, without metadata."""
    codestream = _encode(plain.samples, _DEFAULT_RESOLUTIONS)
    return codestream if is_bare else _pack_file(_boxes_for(plain, metadata), codestream)


# --- samples ----------------------------------------------------------------------------------------------------------


def _read_samples(codestream: bytes, header: Header) -> Samples:
    """The codestream alone is decoded: what boxes say about its colours was read before."""
    samples: Samples = imagecodecs.jpeg2k_decode(codestream)
    expected = header.height_px, header.width_px, len(header.bits)
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape != expected or samples.dtype.itemsize * 8 != header.bits[0]:
        raise PhotoUndecodable(f"the JPEG 2000's samples are {samples.shape}, but its header says {expected}")
    return samples


def _encode(samples: Samples, num_resolutions: int) -> bytes:
    most = min(samples.shape[:2]).bit_length()  # a copy of less than one sample is none
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples),
            level=0,
            codecformat="j2k",
            reversible=True,
            resolutions=max(1, min(num_resolutions, most, _MAX_RESOLUTIONS)),
        )
    )


# --- the codestream's header ------------------------------------------------------------------------------------------


def _read_header(codestream: bytes) -> Header:
    """Raises UnsupportedPhoto, and PhotoUndecodable for what lies or would take the decoder more than it may."""
    size = coding = b""
    for marker, payload in _read_markers(codestream):
        size = payload if marker == _SIZE else size
        coding = payload if marker == _CODING else coding
        if marker == _CAPABILITIES:
            raise UnsupportedPhoto("the JPEG 2000 is a high-throughput one (HTJ2K); save it as a plain JPEG 2000")
    if not size or not coding:
        raise PhotoUndecodable("the JPEG 2000 does not say how it is coded: it is damaged; send it again")
    height_px, width_px, bits = _read_size(size)
    num_levels, is_reversible = _read_coding(coding)
    return Header(height_px, width_px, bits, num_levels + 1, is_reversible)


def _read_markers(codestream: bytes) -> Iterator[tuple[int, bytes]]:
    """The main header's marker segments."""
    position = 2
    for _ in range(_MAX_MARKERS):
        if position + 4 > len(codestream):
            break
        marker, num_bytes = struct.unpack_from(">HH", codestream, position)
        if marker == _START_OF_TILE:
            return
        if marker < 0xFF30 or num_bytes < 2:
            break
        yield marker, codestream[position + 4 : position + 2 + num_bytes]
        position += 2 + num_bytes
    raise PhotoUndecodable("the JPEG 2000's header leads to no picture: it is truncated or damaged; send it again")


def _read_size(size: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Height, width, and the bits of each component (annex A.5.1)."""
    capabilities, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, num_components = (
        struct.unpack_from(">H8LH", size)
    )
    components = list(struct.iter_unpack(">BBB", size[36 : 36 + 3 * num_components]))
    if capabilities & _PART_2:
        raise UnsupportedPhoto("the JPEG 2000 uses extensions (part 2); save it as a plain JPEG 2000")
    if not components or len(components) != num_components or right <= left or bottom <= top:
        raise PhotoUndecodable("the JPEG 2000 has no size: it is damaged; send it again")
    if any((across, down) != (1, 1) for _, across, down in components):
        raise UnsupportedPhoto("the JPEG 2000's channels differ in their size; save it as RGB at full resolution")
    bits = tuple((depth & 0x7F) + 1 for depth, _, _ in components)
    if any(depth & 0x80 for depth, _, _ in components) or set(bits) not in ({8}, {16}):
        raise UnsupportedPhoto(
            f"the JPEG 2000 has channels of {' + '.join(map(str, sorted(set(bits))[:8]))} bits, or signed ones, but "
            "only 8 and 16 unsigned bits are taken; save it with one of these"
        )
    if not tile_width or not tile_height:
        raise PhotoUndecodable("the JPEG 2000's tiles have no size: it is damaged; send it again")
    num_tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if num_tiles > _MAX_TILES:
        raise PhotoUndecodable(f"the JPEG 2000 is cut into {num_tiles:,} tiles; at most {_MAX_TILES:,} are read")
    return bottom - top, right - left, bits


def _read_coding(coding: bytes) -> tuple[int, bool]:
    """How often the picture is halved, and whether reversibly (annex A.6.1)."""
    style, _, num_layers, _, num_levels, _, _, _, transform = struct.unpack_from(">BBHBBBBBB", coding)
    if num_layers > _MAX_LAYERS:
        raise PhotoUndecodable(f"the JPEG 2000 has {num_layers:,} layers; at most {_MAX_LAYERS:,} are read")
    precincts = coding[10 : 11 + num_levels] if style & 1 else b""
    if any(min(size & 15, size >> 4) < _LEAST_PRECINCT for size in precincts):
        raise PhotoUndecodable("the JPEG 2000 is cut into precincts of less than 32 px; save it anew")
    return num_levels, transform == _REVERSIBLE


# --- colours ----------------------------------------------------------------------------------------------------------


def _colours_of(header: Header, boxes: Sequence[tuple[bytes, bytes]]) -> ColourModel:
    """boxes: those inside of jp2h. Raises UnsupportedPhoto for all but grey and RGB, with or without straight alpha."""
    if any(kind == b"pclr" for kind, _ in boxes):
        raise UnsupportedPhoto("the JPEG 2000 has a palette; convert it to RGB")
    num_channels = len(header.bits)
    has_alpha = _has_alpha(next((data for kind, data in boxes if kind == b"cdef"), b""), num_channels)
    num_colours = num_channels - has_alpha
    spaces = {_colours_in(data) for kind, data in boxes if kind == b"colr"} - {None}
    if num_colours not in (1, 3) or (spaces and num_colours not in spaces):
        raise UnsupportedPhoto(
            f"the JPEG 2000 has {num_channels} channels, and they are said to be neither grey nor RGB; only these are "
            "taken, with or without straight alpha; convert it to one of them"
        )
    return Direct(num_colours, has_alpha)


def _colours_in(colour: bytes) -> int | None:
    """How many channels the space of a colr box has; 0 for one that is not taken, None for one that is not told."""
    method = colour[0]
    if method == _BY_NUMBER:
        return {_SRGB: 3, _GREY: 1}.get(int.from_bytes(colour[3:7], "big"), 0)
    if method in _BY_PROFILE:
        return {b"RGB ": 3, b"GRAY": 1}.get(colour[3 + 16 : 3 + 20], 0)
    return None


def _has_alpha(definitions: bytes, num_channels: int) -> bool:
    """definitions: of a cdef box: number, type and association of each channel. Raises UnsupportedPhoto."""
    if not definitions:
        return False
    channels = list(struct.iter_unpack(">HHH", definitions[2 : 2 + 6 * num_channels]))
    *colours, last = sorted(channels)
    has_alpha = bool(last[1] == _OPACITY)
    expected = [(index, _COLOUR, index + 1) for index in range(num_channels - has_alpha)]
    if has_alpha:
        expected.append((num_channels - 1, _OPACITY, 0))
    if [*colours, last] != expected:
        raise UnsupportedPhoto(
            "the JPEG 2000's channels are in an unusual order, or its alpha is premultiplied; save it as RGB with "
            "straight alpha, or without"
        )
    return has_alpha


# --- boxes ------------------------------------------------------------------------------------------------------------


def _read_file(encoded: bytes) -> tuple[tuple[Box, ...], bytes]:
    """The boxes, less thumbnails, and the codestream; no boxes around a bare one."""
    if encoded.startswith(_CODESTREAM):
        return (), encoded
    boxes: list[Box] = []
    codestreams: list[bytes] = []
    for box, (start, end) in _read_boxes(encoded):
        if box.type == _PICTURE:
            codestreams.append(encoded[start:end])
        boxes.append(_without_thumbnail(box))
    if len(codestreams) > 1:
        raise UnsupportedPhoto("the JPEG 2000 holds several pictures; send them one by one")
    if not codestreams or not codestreams[0].startswith(_CODESTREAM):
        raise PhotoUndecodable("the JPEG 2000 holds no picture: it is truncated or damaged; send it again, whole")
    return tuple(boxes), codestreams[0]


def _read_boxes(encoded: bytes) -> Iterator[tuple[Box, tuple[int, int]]]:
    """Each with where its data lie, from start to end (annex I.4). Raises PhotoUndecodable."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position == len(encoded):
            return
        if position + 8 > len(encoded):
            break
        num_bytes, kind = struct.unpack_from(">L4s", encoded, position)
        start = position + 8
        if num_bytes == 1 and position + 16 <= len(encoded):
            (num_bytes,) = struct.unpack_from(">Q", encoded, start)
            start += 8
        end = position + num_bytes if num_bytes else len(encoded)
        if end < start or end > len(encoded):
            break
        yield Box(kind, b"" if kind == _PICTURE else encoded[start:end]), (start, end)
        position = end
    raise PhotoUndecodable("the JPEG 2000's boxes lead nowhere: it is truncated or damaged; send it again, whole")


def _pack_file(boxes: Sequence[Box], codestream: bytes) -> bytes:
    return b"".join(_pack_box(box._replace(data=codestream) if box.type == _PICTURE else box) for box in boxes)


def _pack_box(box: Box) -> bytes:
    if 8 + len(box.data) >= 1 << 32:
        return struct.pack(">L4sQ", 1, box.type, 16 + len(box.data)) + box.data
    return struct.pack(">L4s", 8 + len(box.data), box.type) + box.data


def _first(boxes: Sequence[Box], kind: bytes) -> bytes | None:
    return next((box.data for box in boxes if box.type == kind), None)


def _without_thumbnail(box: Box) -> Box:
    cuts = ((_EXIF_ID, without_thumbnail), (_XMP_ID, without_xmp_thumbnail), (_RESOURCE_ID, without_resource_thumbnail))
    for identity, cut in cuts:
        if box.type == _UUID and box.data.startswith(identity):
            return box._replace(data=identity + cut(box.data.removeprefix(identity)))
    return box


# --- metadata ---------------------------------------------------------------------------------------------------------


def _read_metadata(boxes: Sequence[Box], in_header: Sequence[Box]) -> Metadata:
    profiles = [box.data[3:] for box in in_header if box.type == b"colr" and box.data[0] in _BY_PROFILE]
    info = {
        "icc_profile": profiles[0] if profiles else None,
        "xmp": _read_uuid(boxes, _XMP_ID),
        "dpi": _read_resolution(_first(in_header, b"res ") or b""),
    }
    return read_metadata(info, _read_uuid(boxes, _EXIF_ID))


def _read_uuid(boxes: Sequence[Box], identity: bytes) -> bytes | None:
    data = next((box.data for box in boxes if box.type == _UUID and box.data.startswith(identity)), None)
    return data.removeprefix(identity) if data else None


def _read_resolution(resolution: bytes) -> tuple[float, float] | None:
    """Dots per inch, horizontal and vertical, of a res box: as captured, else as to be shown (annex I.5.3.7). None of
    one that is broken: the picture needs none."""
    try:
        found = {box.type: box.data for box, _ in _read_boxes(resolution)}
        numbers = struct.unpack_from(">HHHHbb", found.get(b"resc") or found.get(b"resd") or b"")
    except (PhotoUndecodable, struct.error):
        return None
    above_down, below_down, above_across, below_across, tens_down, tens_across = numbers
    if not below_down or not below_across:
        return None
    return (
        above_across / below_across * 10.0**tens_across * 0.0254,
        above_down / below_down * 10.0**tens_down * 0.0254,
    )


def _with_history(boxes: Sequence[Box], history: History | None) -> Sequence[Box]:
    """In the XMP, or in one of its own in front of the codestream."""
    if history is None:
        return boxes
    is_xmp = [box.type == _UUID and box.data.startswith(_XMP_ID) for box in boxes]
    at = is_xmp.index(True) if any(is_xmp) else [box.type for box in boxes].index(_PICTURE)
    xmp = boxes[at].data.removeprefix(_XMP_ID) if any(is_xmp) else None
    written = Box(_UUID, _XMP_ID + add_history(xmp, history))
    return [*boxes[:at], written, *boxes[at + any(is_xmp) :]]


def _boxes_for(plain: Plain, metadata: Metadata) -> list[Box]:
    """Those of a new file."""
    height_px, width_px, num_channels = plain.samples.shape
    has_alpha, is_grey = plain.mode in ("LA", "RGBA"), plain.mode in ("L", "LA")
    depth = plain.samples.dtype.itemsize * 8 - 1
    inside = [Box(b"ihdr", struct.pack(">LLHBBBB", height_px, width_px, num_channels, depth, 7, 0, 0))]
    profile = metadata.icc_profile
    if profile and profile[16:20] == (b"GRAY" if is_grey else b"RGB "):
        inside.append(Box(b"colr", b"\2\0\0" + profile))
    else:
        inside.append(Box(b"colr", struct.pack(">BBBL", _BY_NUMBER, 0, 0, _GREY if is_grey else _SRGB)))
    if has_alpha:
        channels = [(index, _COLOUR, index + 1) for index in range(num_channels - 1)]
        packed = [struct.pack(">HHH", *channel) for channel in (*channels, (num_channels - 1, _OPACITY, 0))]
        inside.append(Box(b"cdef", struct.pack(">H", num_channels) + b"".join(packed)))
    if metadata.dpi:
        inside.append(Box(b"res ", _pack_box(Box(b"resc", _pack_resolution(*metadata.dpi)))))
    boxes = [Box(b"jP  ", b"\r\n\x87\n"), Box(b"ftyp", b"jp2 \0\0\0\0jp2 ")]
    boxes.append(Box(_HEADER, b"".join(map(_pack_box, inside))))
    if metadata.exif:
        boxes.append(Box(_UUID, _EXIF_ID + metadata.exif))
    if metadata.xmp:
        boxes.append(Box(_UUID, _XMP_ID + metadata.xmp))
    return [*boxes, Box(_PICTURE, b"")]


def _pack_resolution(across_dpi: float, down_dpi: float) -> bytes:
    """As hundredths of an inch, 10,000 of which are 254 m: dots per metre are dpi * 10,000 / 254."""
    fractions = [(round(dpi * 10), 254) if dpi * 10 < 65_536 else (round(dpi), 254) for dpi in (down_dpi, across_dpi)]
    tens = [3 if dpi * 10 < 65_536 else 4 for dpi in (down_dpi, across_dpi)]
    return struct.pack(">HHHHbb", *fractions[0], *fractions[1], *tens)
