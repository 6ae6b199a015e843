"""PNG: written back losslessly, with its ancillary chunks as they were.

Kept, byte for byte: colour (iCCP, sRGB, gAMA, cHRM, cICP, sBIT and HDR's), pHYs, eXIf, tRNS, bKGD, texts, tIME, and
unknown chunks that say that they may be copied. Not kept: interlacing, the EXIF thumbnail, how it was compressed.
A text or profile that unpacks to more than 1 MiB (Pillow's limit) makes the file undecodable.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image, PngImagePlugin

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_metadata import Metadata, OpenedPhoto
from restoration.photo_tags import without_thumbnail

_SIGNATURE_BYTES = 8
_HEADER_BYTES = _SIGNATURE_BYTES + 25  # the signature and the IHDR chunk
_KEPT = frozenset(b"iCCP sRGB gAMA cHRM cICP sBIT mDCV cLLI pHYs eXIf tRNS bKGD tEXt zTXt iTXt tIME sPLT".split())
_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))


@dataclass(frozen=True)
class PngTraits:
    """chunks: the ancillary ones, as they stand in the file; has_transparent_colour: one sample value is said to be
    transparent (tRNS), which no other format can say."""

    chunks: bytes
    has_transparent_colour: bool


def open_png(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    chunks = [(name, data) for name, data in _read_chunks(encoded) if name[0] & 0x20]
    file = PngImagePlugin.PngImageFile(io.BytesIO(encoded))
    check_size(file.height, file.width)
    _check_is_8_bit(file)
    kept = b"".join(_pack_chunk(name, data) for name, data in chunks if _is_kept(name))
    return OpenedPhoto(file, PngTraits(kept, any(name == b"tRNS" for name, _ in chunks)))


def write_png(picture: Image.Image, metadata: Metadata, traits: PngTraits | None) -> bytes:
    """picture: L, LA, RGB or RGBA; written losslessly."""
    output = io.BytesIO()
    if traits is not None:
        picture.save(output, "PNG")
        written = output.getbuffer()
        return b"".join((written[:_HEADER_BYTES], traits.chunks, written[_HEADER_BYTES:]))
    texts = PngImagePlugin.PngInfo()
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp)
    picture.save(output, "PNG", icc_profile=metadata.icc_profile, exif=metadata.exif, dpi=metadata.dpi, pnginfo=texts)
    return output.getvalue()


def _read_chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every chunk's name and, for all but the pictures, its data; each chunk's checksum holds."""
    # Pillow takes microseconds a chunk; a file of empty ones would keep it busy for minutes. Pictures are commonly
    # written in chunks of 8 KiB and more.
    max_chunks = 4096 + len(encoded) // 512
    view = memoryview(encoded)
    position = _SIGNATURE_BYTES
    for _ in range(max_chunks):
        if position + 12 > len(encoded):
            raise PhotoUndecodable("the PNG ends before its last chunk: it is truncated; send it again, whole")
        (num_bytes,) = struct.unpack_from(">L", encoded, position)
        end = position + 8 + num_bytes
        if end + 4 > len(encoded):
            raise PhotoUndecodable("the PNG ends inside a chunk: it is truncated; send it again, whole")
        name = encoded[position + 4 : position + 8]
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">L", encoded, end)[0]:
            raise PhotoUndecodable(f"the PNG is damaged: the checksum of a chunk {name!r} is wrong; send it again")
        yield name, b"" if name == b"IDAT" else encoded[position + 8 : end]
        if name == b"IEND":
            return
        position = end + 4
    raise PhotoUndecodable(f"the PNG has more than {max_chunks:,} chunks for its size; save it anew")


def _is_kept(name: bytes) -> bool:
    is_safe_to_copy = bool(name[3] & 0x20)  # PNG 3rd edition, section 5.4
    return name in _KEPT or (is_safe_to_copy and name not in _ANIMATION)


def _pack_chunk(name: bytes, data: bytes) -> bytes:
    if name == b"eXIf":
        data = without_thumbnail(data)
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def _check_is_8_bit(file: PngImagePlugin.PngImageFile) -> None:
    """Pillow opens 16-bit RGB as RGB and 2- or 4-bit grey as L; only the raw mode tells."""
    raw_mode = file.tile[0].args if file.tile else file.mode
    if file.mode in ("L", "LA", "RGB", "RGBA") and raw_mode != file.mode:
        raise UnsupportedPhoto(
            f"the PNG's samples are {raw_mode} (layout;bits), but only 8 bits a channel are taken; "
            "save it with 8 bits a channel"
        )
