"""WebP: written back losslessly, a lossy one too: a second lossy pass would change undamaged samples.

Kept: ICC profile; EXIF and XMP, without their thumbnails. Not kept: unknown chunks, lossy compression (the file grows;
a quality asks for it).
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import WebPImagePlugin

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_colours import Direct
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_pillow import Plain, read_samples, to_picture

DEFAULT_QUALITY = 95
MAX_SIDE_PX = 16_383

_MAX_CHUNKS = 64  # before the picture there are at most a header, a profile and an alpha plane


@dataclass(frozen=True)
class WebpTraits:
    is_lossless: bool


class _Header(NamedTuple):
    height_px: int
    width_px: int
    is_lossless: bool
    is_animation: bool


def open_webp(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    header = _read_header(encoded)
    # Before Pillow opens it, because its decoder allocates the canvas then.
    check_size(header.height_px, header.width_px)
    if header.is_animation:
        raise UnsupportedPhoto("the WebP is an animation; send a still photo")
    file = WebPImagePlugin.WebPImageFile(io.BytesIO(encoded))
    if (file.height, file.width) != (header.height_px, header.width_px):
        raise PhotoUndecodable("the WebP's picture is not of the size that its header claims; save it anew")
    return OpenedPhoto(
        file.height,
        file.width,
        Direct(num_colours=3, has_alpha=file.mode == "RGBA"),
        lambda: read_samples(file),
        read_metadata(file.info),
        WebpTraits(header.is_lossless),
    )


def write_webp(plain: Plain, metadata: Metadata, *, is_lossless: bool, quality: int | None = None) -> bytes:
    """plain: 8-bit L, LA, RGB or RGBA (WebP knows no grey: it is written as RGB, without a grey profile). A quality
    makes it lossy; without one it is lossless if is_lossless says so, transparent pixels included, else of quality 95.
    """
    output = io.BytesIO()
    options: dict[str, object] = {"quality": quality or DEFAULT_QUALITY}
    if is_lossless and quality is None:
        # For lossless files `quality` is effort: 75 is libwebp's own default.
        options = {"lossless": True, "exact": True, "quality": 75}
    profile = metadata.icc_profile
    if profile and plain.mode in ("L", "LA") and profile[16:20] == b"GRAY":
        profile = None
    to_picture(plain).save(
        output, "WEBP", icc_profile=profile, exif=metadata.exif or b"", xmp=metadata.xmp or b"", **options
    )
    return output.getvalue()


def _read_header(encoded: bytes) -> _Header:
    """The container's facts (RFC 9649, section 2), from the chunks before the picture."""
    position, canvas_px = 12, None
    for _ in range(_MAX_CHUNKS):
        name = encoded[position : position + 4]
        body = encoded[position + 8 : position + 18]
        if len(body) < 10:
            break
        if name == b"VP8X":
            width_px, height_px = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
            canvas_px = height_px, width_px
            if body[0] & 0x02:
                return _Header(height_px, width_px, is_lossless=False, is_animation=True)
        elif name == b"VP8L":
            (bits,) = struct.unpack_from("<L", body, 1)
            height_px, width_px = canvas_px or (((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
            return _Header(height_px, width_px, is_lossless=True, is_animation=False)
        elif name == b"VP8 ":
            width_px, height_px = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
            height_px, width_px = canvas_px or (height_px, width_px)
            return _Header(height_px, width_px, is_lossless=False, is_animation=False)
        (num_bytes,) = struct.unpack_from("<L", encoded, position + 4)
        position += 8 + num_bytes + num_bytes % 2
    raise PhotoUndecodable("the WebP holds no picture: it is truncated or damaged; send it again from the original")
