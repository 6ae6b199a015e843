"""PNG: written back losslessly, in its own colour type and depth, with its ancillary chunks as they were.

Kept, byte for byte: colour (iCCP, sRGB, gAMA, cHRM, cICP, sBIT and HDR's), the palette, pHYs, eXIf, tRNS, bKGD, texts,
tIME, and unknown chunks that say that they may be copied. Written with 8 bits instead of 16, tRNS, bKGD and sBIT are
rounded as the samples are. Not kept: interlacing, thumbnails (EXIF, XMP), how it was compressed. A text or profile that
unpacks to more than 1 MiB (Pillow's limit) makes the file undecodable.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image, PngImagePlugin

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_colours import Bytes, ColourModel, Direct, Indexed, Samples, grey_levels, to_8_bit
from restoration.photo_history import History, add_history
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_pillow import Plain, read_samples, to_picture
from restoration.photo_tags import without_thumbnail
from restoration.photo_thumbnails import without_xmp_thumbnail

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = len(_SIGNATURE) + 25  # the signature and the IHDR chunk
_KEPT = frozenset(
    b"PLTE iCCP sRGB gAMA cHRM cICP sBIT mDCV cLLI pHYs eXIf tRNS bKGD tEXt zTXt iTXt tIME sPLT hIST".split()
)
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_DIRECT = {
    _GREY: Direct(1, has_alpha=False),
    _RGB: Direct(3, has_alpha=False),
    _GREY_ALPHA: Direct(1, has_alpha=True),
    _RGBA: Direct(3, has_alpha=True),
}
_NUM_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
# In 100,000ths, and how far off they may be, since writers round them
_GAMMA_AND_PRIMARIES_OF_SRGB: Mapping[bytes, tuple[tuple[int, ...], int]] = {
    b"gAMA": ((45455,), 500),
    b"cHRM": ((31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), 200),
}
_CICP_OF_SRGB = bytes((1, 13, 0, 1))  # ITU-T H.273: BT.709's primaries, sRGB's curve, RGB, full range
# On grain of 16 bits, zlib's 6, Pillow's own, takes a third longer and gains 1 %
_DEEP_LEVEL = 3


class Chunk(NamedTuple):
    name: bytes
    data: bytes


@dataclass(frozen=True)
class PngTraits:
    """chunks: the ancillary ones and the palette, in their order; num_bits: of a sample; colour_type: PNG's number for
    it; only_here: what the photo has that no other format can say."""

    chunks: tuple[Chunk, ...]
    num_bits: int
    colour_type: int
    only_here: str | None
    is_lossless: ClassVar[bool] = True


def open_png(encoded: bytes, check_size: Callable[[int, int], None]) -> OpenedPhoto:
    chunks = [chunk for chunk in _read_chunks(encoded) if chunk.name != b"IDAT"]
    file = PngImagePlugin.PngImageFile(io.BytesIO(encoded))
    check_size(file.height, file.width)
    if getattr(file, "is_animated", False):
        raise UnsupportedPhoto("the PNG has more than one frame: it is an animation; send a still photo")
    num_bits, colour_type = struct.unpack_from(">BB", encoded, len(_SIGNATURE) + 16)
    kept = tuple(_without_thumbnail(chunk) for chunk in chunks if _is_kept(chunk.name))
    metadata = read_metadata(file.info)
    return OpenedPhoto(
        file.height,
        file.width,
        _colours_of(num_bits, colour_type, kept),
        lambda: _read_samples(encoded, file, num_bits, _NUM_CHANNELS[colour_type]),
        metadata,
        PngTraits(kept, num_bits, colour_type, _only_in_png(kept, colour_type, metadata)),
    )


def write_png(plain: Plain, metadata: Metadata) -> bytes:
    """plain: L, LA, RGB or RGBA of 8 or 16 bits; written losslessly."""
    output = io.BytesIO()
    texts = PngImagePlugin.PngInfo()
    if metadata.xmp:
        texts.add_itxt(_XMP_KEYWORD.decode(), metadata.xmp)
    is_deep = plain.samples.dtype == np.uint16  # Pillow can write all that goes along with them, but not the samples
    picture = Image.new(plain.mode, (1, 1)) if is_deep else to_picture(plain)
    picture.save(output, "PNG", icc_profile=metadata.icc_profile, exif=metadata.exif, dpi=metadata.dpi, pnginfo=texts)
    if not is_deep:
        return output.getvalue()
    chunks = [chunk for chunk in _read_chunks(output.getvalue()) if _is_kept(chunk.name)]
    return _with_chunks(_encode_deep(plain.samples), chunks)


def rewrite_png(samples: Samples, traits: PngTraits, history: History | None = None) -> bytes:
    """samples: (H, W, C) of the kind that the photo came in, whatever H and W."""
    return _with_chunks(_encode(samples, traits), _with_history(traits.chunks, history))


def rewrite_png_with_8_bits(samples: Bytes, traits: PngTraits, history: History | None = None) -> bytes:
    """samples: (H, W, C) of the kind that the photo came in, but for their depth, which was 16."""
    chunks = tuple(_with_8_bits(chunk) for chunk in traits.chunks)
    return rewrite_png(samples, replace(traits, chunks=chunks, num_bits=8), history)


def _encode(samples: Samples, traits: PngTraits) -> bytes:
    """A PNG of nothing but the samples."""
    if traits.num_bits == 16:
        return _encode_deep(samples)
    if traits.colour_type == _PALETTE or traits.num_bits < 8:
        return _encode_indexed(samples[:, :, 0], traits)
    output = io.BytesIO()
    to_picture(Plain(samples, ("L", "LA", "RGB", "RGBA")[samples.shape[2] - 1])).save(output, "PNG")
    return output.getvalue()


def _colours_of(num_bits: int, colour_type: int, chunks: Sequence[Chunk]) -> ColourModel:
    if colour_type != _PALETTE:
        return grey_levels(num_bits) if num_bits < 8 else _DIRECT[colour_type]
    data = {chunk.name: chunk.data for chunk in chunks}
    rgb = np.frombuffer(data[b"PLTE"], np.uint8).reshape(-1, 3)[: 1 << num_bits]
    table = np.zeros((1 << num_bits, 4), np.uint8)  # numbers that the palette lacks are black, as Pillow has them
    table[: len(rgb), :3] = rgb
    table[:, 3] = 255
    alphas = np.frombuffer(data.get(b"tRNS", b""), np.uint8)[: len(table)]
    table[: len(alphas), 3] = alphas
    return Indexed(table.tobytes(), "palette")


def _only_in_png(chunks: Sequence[Chunk], colour_type: int, metadata: Metadata) -> str | None:
    data = {chunk.name: chunk.data for chunk in chunks}
    if b"tRNS" in data and colour_type in (_GREY, _RGB):
        return "a transparent colour (tRNS)"
    telling = [name.decode() for name in _colour_chunks(data)] if metadata.icc_profile is None else []
    return f"colours that {' and '.join(telling)} define, not a profile" if telling else None


def _colour_chunks(data: Mapping[bytes, bytes]) -> list[bytes]:
    """Those that define other colours than sRGB's: PNG 3rd edition, section 4.3, has their order of precedence."""
    if b"cICP" in data:
        return [b"cICP"] if data[b"cICP"] != _CICP_OF_SRGB else []
    if b"sRGB" in data:
        return []
    return [
        name
        for name, (expected, slack) in _GAMMA_AND_PRIMARIES_OF_SRGB.items()
        if len(data.get(name, b"")) == 4 * len(expected)
        and (np.abs(np.frombuffer(data[name], ">u4").astype(np.int64) - expected) > slack).any()
    ]


def _with_8_bits(chunk: Chunk) -> Chunk:
    if chunk.name in (b"tRNS", b"bKGD") and len(chunk.data) % 2 == 0:
        return chunk._replace(data=to_8_bit(np.frombuffer(chunk.data, ">u2")).astype(">u2").tobytes())
    return chunk._replace(data=bytes(min(bits, 8) for bits in chunk.data)) if chunk.name == b"sBIT" else chunk


def _read_samples(encoded: bytes, file: PngImagePlugin.PngImageFile, num_bits: int, num_channels: int) -> Samples:
    if num_bits == 16:  # Pillow has grey of so many bits, but no colour
        decoded = imagecodecs.png_decode(encoded)  # of a transparent colour (tRNS) it makes alpha
        deep: Samples = np.ascontiguousarray(decoded.reshape(file.height, file.width, -1)[:, :, :num_channels])
        return deep
    scale = 255 // ((1 << num_bits) - 1) if file.mode == "L" else 1
    samples = read_samples(file)
    return samples // np.uint8(scale) if scale > 1 else samples


def _encode_deep(samples: Samples) -> bytes:
    return bytes(imagecodecs.png_encode(samples[:, :, 0] if samples.shape[2] == 1 else samples, level=_DEEP_LEVEL))


def _encode_indexed(numbers: Samples, traits: PngTraits) -> bytes:
    """numbers: (H, W). No filter, as PNG (3rd edition, section 12.7) advises for them."""
    height_px, width_px = numbers.shape
    packed = imagecodecs.packints_encode(numbers, traits.num_bits, runlen=width_px)
    rows = np.pad(np.frombuffer(packed, np.uint8).reshape(height_px, -1), ((0, 0), (1, 0)))  # each has filter 0
    header = struct.pack(">LLBBBBB", width_px, height_px, traits.num_bits, traits.colour_type, 0, 0, 0)
    chunks = (Chunk(b"IHDR", header), Chunk(b"IDAT", zlib.compress(rows.tobytes())), Chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(_pack_chunk(chunk) for chunk in chunks)


def _with_chunks(written: bytes, chunks: Sequence[Chunk]) -> bytes:
    """The encoder's header and picture, with the photo's chunks between them."""
    pictures = [Chunk(name, data) for name, data in _read_chunks(written) if name == b"IDAT"]
    packed = [_pack_chunk(chunk) for chunk in (*chunks, *pictures, Chunk(b"IEND", b""))]
    return b"".join((written[:_HEADER_BYTES], *packed))


def _read_chunks(encoded: bytes) -> Iterator[Chunk]:
    """Every chunk; its checksum holds."""
    # Pillow takes microseconds a chunk; a file of empty ones would keep it busy for minutes. Pictures are commonly
    # written in chunks of 8 KiB and more.
    max_chunks = 4096 + len(encoded) // 512
    view = memoryview(encoded)
    position = len(_SIGNATURE)
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
        yield Chunk(name, encoded[position + 8 : end])
        if name == b"IEND":
            return
        position = end + 4
    raise PhotoUndecodable(f"the PNG has more than {max_chunks:,} chunks for its size; save it anew")


def _is_kept(name: bytes) -> bool:
    is_safe_to_copy = bool(name[3] & 0x20)  # PNG 3rd edition, section 5.4
    return name in _KEPT or (is_safe_to_copy and name not in _ANIMATION)


def _with_history(chunks: Sequence[Chunk], history: History | None) -> Sequence[Chunk]:
    if history is None:
        return chunks
    others = [chunk for chunk in chunks if not _is_xmp(chunk)]
    try:
        xmp = next((_read_xmp(chunk) for chunk in chunks if _is_xmp(chunk)), None)
    except (IndexError, zlib.error):  # broken, as Pillow, which leaves it out, found before
        return chunks
    return [*others, Chunk(b"iTXt", _XMP_KEYWORD + bytes(5) + add_history(xmp, history))]


def _is_xmp(chunk: Chunk) -> bool:
    return chunk.name == b"iTXt" and chunk.data.startswith(_XMP_KEYWORD + b"\0")


def _read_xmp(chunk: Chunk) -> bytes:
    """PNG 3rd edition, section 11.3.3.4. What unpacks to too much was refused by Pillow before."""
    is_compressed, rest = chunk.data[len(_XMP_KEYWORD) + 1] == 1, chunk.data[len(_XMP_KEYWORD) + 3 :]
    text = rest.split(b"\0", 2)[2]  # behind a language and a translated keyword
    return zlib.decompress(text) if is_compressed else text


def _without_thumbnail(chunk: Chunk) -> Chunk:
    if chunk.name == b"eXIf":
        return chunk._replace(data=without_thumbnail(chunk.data))
    return chunk._replace(data=without_xmp_thumbnail(chunk.data)) if _is_xmp(chunk) else chunk


def _pack_chunk(chunk: Chunk) -> bytes:
    name, data = chunk
    return b"".join((struct.pack(">L", len(data)), name, data, struct.pack(">L", zlib.crc32(data, zlib.crc32(name)))))
