"""Bad inputs, each with its exact status and problem type. `python -m tests.service.bad_inputs` writes the page."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, TiffImagePlugin

from .serving import encode, grey_photo

PAGE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"
MAX_UPLOAD_BYTES = 20_000_000
MAX_METADATA_BYTES = 1_000_000
SETTINGS = {
    "RESTORE_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
    "RESTORE_MAX_METADATA_BYTES": str(MAX_METADATA_BYTES),
}
PHOTO = encode(grey_photo())
JPEG = encode(grey_photo(), "JPEG")
TIFF = encode(grey_photo(), "TIFF")
WEBP = encode(grey_photo(), "WEBP", lossless=True)
JPEG_2000 = encode(grey_photo(), "JPEG2000")
SMALL_MASK = encode(np.zeros((10, 10), np.uint8))
DEFLATE, PACKBITS, ZSTANDARD = 8, 32773, 50000
"""TIFF's numbers of compressions."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class BadInput:
    """request: what httpx's `post` takes."""

    name: str
    request: dict[str, Any]
    status: int
    problem: str
    query: str = ""


def chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width_px: int, height_px: int, *ancillary: bytes, samples: bytes = bytes(100)) -> bytes:
    """A PNG that promises this size, whatever its samples are."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    picture = chunk(b"IDAT", zlib.compress(samples))
    return b"".join((PNG_SIGNATURE, chunk(b"IHDR", header), *ancillary, picture, chunk(b"IEND", b"")))


def with_chunks(*ancillary: bytes) -> bytes:
    """The good photo with these chunks behind its header."""
    return b"".join((PHOTO[:33], *ancillary, PHOTO[33:]))


def jpeg_that_promises(width_px: int, height_px: int) -> bytes:
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height_px, width_px) + JPEG[start + 4 :]


def jpeg_with_segments(num: int, payload: bytes) -> bytes:
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    return JPEG[:2] + segment * num + JPEG[2:]


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory. tags: number, type, number of values, value or offset."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)


def plain_tiff(picture: bytes = b"", **changes: int) -> bytes:
    tags = {"width": (256, 4, 1, 64), "height": (257, 4, 1, 64), "bits": (258, 3, 1, 8), "compression": (259, 3, 1, 1)}
    tags |= {"photometric": (262, 3, 1, 1), "offset": (273, 4, 1, 4), "samples": (277, 3, 1, 1)}
    tags |= {"rows": (278, 4, 1, 64), "bytes": (279, 4, 1, 4096)}
    if picture:
        changes |= {"offset": 8 + 2 + 12 * len(tags) + 4, "bytes": len(picture)}
    return tiff(*((*tag[:3], changes.get(name, tag[3])) for name, tag in tags.items())) + picture


def tiff_of_pages(num: int, height_px: int = 8, width_px: int = 8) -> bytes:
    pages = [Image.new("L", (width_px, height_px)) for _ in range(num)]
    encoded = io.BytesIO()
    pages[0].save(encoded, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    return encoded.getvalue()


def webp_that_promises(width_px: int, height_px: int) -> bytes:
    size = (width_px - 1) | (height_px - 1) << 14
    return riff(b"VP8L", b"\x2f" + struct.pack("<L", size) + bytes(20))


def jpeg2000_that_promises(
    width_px: int,
    height_px: int,
    *,
    tile_px: int = 1 << 30,
    depth: int = 7,
    num_layers: int = 1,
    precincts: bytes = b"",
) -> bytes:
    """A bare codestream, whatever its samples are."""
    size = struct.pack(">HLLLLLLLLHBBB", 0, width_px, height_px, 0, 0, tile_px, tile_px, 0, 0, 1, depth, 1, 1)
    style = bytes((1 if precincts else 0, 0)) + struct.pack(">HBBBBBB", num_layers, 0, 0, 4, 4, 0, 1) + precincts
    segments = ((b"\xff\x51", size), (b"\xff\x52", style), (b"\xff\x90", bytes(8)))
    return b"\xff\x4f" + b"".join(marker + struct.pack(">H", 2 + len(data)) + data for marker, data in segments)


def riff(name: bytes, content: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<L", len(content)) + content
    return b"RIFF" + struct.pack("<L", len(body)) + body


def animated(format: str) -> bytes:
    frames = [Image.fromarray(grey_photo(32, 32) + shade) for shade in (0, 40)]
    encoded = io.BytesIO()
    frames[0].save(encoded, format, save_all=True, append_images=frames[1:])
    return encoded.getvalue()


def form(*parts: tuple[str, bytes], boundary: str = "frontier") -> dict[str, Any]:
    """A multipart request put together by hand. parts: (rest of Content-Disposition, content)."""
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data{disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    ]
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


def typed(content: bytes, content_type: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": content_type}}


def raw(content: bytes) -> dict[str, Any]:
    return {"content": content}


IMAGE = ('; name="image"; filename="a.png"', PHOTO)
MASK = encode(np.zeros((96, 128), np.uint8))


def bad_inputs() -> list[BadInput]:
    return [
        BadInput(name, request, status, problem)
        for status, problem, cases in (
            (400, "bad-upload", bad_uploads()),
            (413, "upload-too-large", too_large()),
            (415, "unsupported-format", other_formats()),
            (422, "photo-undecodable", undecodable()),
            (422, "photo-too-large", too_many_pixels()),
            (422, "metadata-too-large", too_much_metadata()),
            (422, "unsupported-photo", unsupported()),
            (422, "invalid-option", bad_masks()),
        )
        for name, request in cases
    ] + [
        BadInput(f"the query `{query}`", raw(PHOTO), 422, "invalid-parameter", query)
        for query in ("sensitivity=2", "sensitivity=nan", "mode=foo", "format=gif", "release=../../etc", "modus=tile")
    ]


def bad_uploads() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "an empty body", raw(b"")
    yield "an empty file", {"files": {"image": ("a.png", b"")}}
    yield "a form without a field", form()
    yield "a field of another name", {"files": {"photo": PHOTO}}
    yield "two photos", {"files": [("image", PHOTO), ("image", PHOTO)]}
    yield "two masks of a kind", form(IMAGE, *[('; name="damage"; filename="m"', MASK)] * 2)
    yield "a mask without a photo", {"files": {"damage": MASK}}
    yield "a photo as text", form(('; name="image"', b"old.jpg"))
    yield "options as fields", form(IMAGE, ('; name="mode"', b"tile"))
    yield "a text field of 100 kB", form(('; name="image"', b"x" * 100_000))
    yield "a hundred fields", form(*[(f'; name="f{i}"', b"x") for i in range(100)])
    yield "a hundred files", form(*[(f'; name="f{i}"; filename="f"', b"x") for i in range(100)])
    yield "a part without a name", form(("", PHOTO))
    yield "a part with a header of 10 kB", form((f'; name="image"; filename="{"a" * 10_000}"', PHOTO))
    yield "multipart without a boundary", typed(PHOTO, "multipart/form-data")
    yield "another boundary", form(IMAGE) | {"headers": {"Content-Type": "multipart/form-data; boundary=other"}}
    yield "a boundary of 1,000 letters", typed(PHOTO, f"multipart/form-data; boundary={'b' * 1000}")
    yield (
        "a charset that cannot decode",
        typed(form(IMAGE)["content"], "multipart/form-data; boundary=frontier; charset=undefined"),
    )
    yield "a form cut short", form(IMAGE) | {"content": form(IMAGE)["content"][:300]}


def too_large() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a body beyond the limit, announced", raw(bytes(MAX_UPLOAD_BYTES + 1))
    yield "a body beyond the limit, in chunks", {"content": (bytes(1_000_000) for _ in range(21))}
    yield "a form beyond the limit", form(('; name="image"; filename="a"', bytes(MAX_UPLOAD_BYTES)))


def other_formats() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "text named .jpg", {"files": {"image": ("a.jpg", b"Dear Sir or Madam", "image/jpeg")}}
    yield "zero bytes", raw(bytes(1000))
    yield "a single byte", raw(b"\xff")
    for format in ("GIF", "BMP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS"):
        yield f"a {format}", raw(encode(grey_photo(), format))
    yield "SVG", raw(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
    yield "a PDF", raw(b"%PDF-1.7\n1 0 obj")
    yield "EPS", raw(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    yield "a Photoshop document", raw(b"8BPS\0\1" + bytes(40))
    yield "FITS", raw(b"SIMPLE  =                    T" + b" " * 50)
    yield "HEIC", raw(b"\0\0\0\x18ftypheic" + bytes(40))
    yield "a ZIP archive", raw(b"PK\x03\x04" + bytes(40))
    yield "HTML with a script", raw(b"<!doctype html><script>alert(1)</script>")
    yield "a Python pickle", raw(b"\x80\x05cos\nsystem\n(S'true'\ntR.")
    yield "WMF", raw(b"\xd7\xcd\xc6\x9a" + bytes(40))


def undecodable() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a JPEG cut short", raw(JPEG[:-500])
    yield "a JPEG's first four bytes", raw(b"\xff\xd8\xff\xe0")
    yield "a JPEG of nothing but markers", raw(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000)
    yield "a JPEG of 1 MB of stray bytes", raw(b"\xff\xd8\xff" + b"\x00" * 1_000_000)
    yield "a JPEG without tables", raw(JPEG.replace(b"\xff\xdb", b"\xff\xe9"))
    yield "a PNG cut short", raw(PHOTO[: len(PHOTO) // 2])
    yield "a PNG's signature alone", raw(PNG_SIGNATURE)
    yield "a PNG with a wrong checksum", raw(PHOTO[:40] + b"\0\1\2" + PHOTO[43:])
    yield "a PNG with too few samples", raw(png(500, 500))
    yield "a PNG with garbage for samples", raw(PHOTO[:33] + chunk(b"IDAT", b"garbage") + chunk(b"IEND", b""))
    yield "a PNG of 100,000 empty chunks", raw(with_chunks(chunk(b"teSt", b"") * 100_000))
    yield "a PNG with a chunk of 4 GB", raw(PHOTO[:33] + struct.pack(">I", 0xFFFFFFFF) + b"IDAT" + bytes(100))
    yield (
        "a PNG whose text of 50 kB unpacks to 50 MB",
        raw(with_chunks(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))))),
    )
    yield (
        "a PNG whose profile of 50 kB unpacks to 50 MB",
        raw(with_chunks(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))))),
    )
    yield "a WebP cut short", raw(WEBP[: len(WEBP) // 2])
    yield "a WebP without a picture", raw(riff(b"ICCP", bytes(100)))
    yield "a WebP of zeros", raw(webp_that_promises(100, 100))
    yield "a TIFF cut short", raw(TIFF[: len(TIFF) // 2])
    yield "a TIFF's first eight bytes", raw(TIFF[:8])
    yield "a TIFF without a picture", raw(tiff((256, 4, 1, 10), (257, 4, 1, 10)))
    yield "a TIFF whose samples lie beyond its end", raw(plain_tiff(offset=1 << 30))
    yield "a TIFF whose directory is its own next one", raw(b"II*\0" + struct.pack("<LHL", 8, 0, 8))
    yield "a TIFF of 4 billion strips", raw(tiff((256, 4, 1, 64), (257, 4, 1, 64), (273, 4, 0xFFFFFFFF, 8)))
    yield "a TIFF of no width", raw(plain_tiff(width=0))
    yield "a JPEG 2000 cut short", raw(JPEG_2000[: len(JPEG_2000) // 2])
    yield "a JPEG 2000's signature alone", raw(JPEG_2000[:12])
    yield "a JPEG 2000 without a picture", raw(JPEG_2000[: JPEG_2000.index(b"jp2c") - 4])
    yield "a JPEG 2000 with a box of 4 GB", raw(JPEG_2000[:32] + b"\xff\xff\xff\xffjp2h" + JPEG_2000[40:])
    yield "a JPEG 2000 of 1 million tiles", raw(jpeg2000_that_promises(1000, 1000, tile_px=1))
    yield "a JPEG 2000 of 65,535 layers", raw(jpeg2000_that_promises(1000, 1000, num_layers=65_535))
    yield "a JPEG 2000 of 30 million precincts", raw(jpeg2000_that_promises(10_000, 3_000, precincts=b"\0"))
    yield "a JPEG 2000 with nothing in its tile", raw(jpeg2000_that_promises(1000, 1000))
    for name, compression, picture in (
        ("PackBits", PACKBITS, b"\x81\0" * 800_000),
        ("deflate", DEFLATE, zlib.compress(bytes(100_000_000))),
        ("Zstandard", ZSTANDARD, imagecodecs.zstd_encode(bytes(100_000_000))),
    ):
        yield (
            f"a TIFF of 64 x 64 whose strip unpacks to 100 MB by {name}",
            raw(plain_tiff(picture, compression=compression)),
        )


def too_many_pixels() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a PNG that promises 65,000 x 65,000", raw(png(65_000, 65_000))
    yield "a PNG that promises 2 billion x 1", raw(png(2_000_000_000, 1))
    yield "a PNG of 1 MB that holds 17,000 x 17,000", raw(png(17_000, 17_000, samples=bytes(51_001 * 17_000)))
    yield "a JPEG that promises 65,000 x 65,000", raw(jpeg_that_promises(65_000, 65_000))
    yield "a WebP that promises 16,383 x 16,383", raw(webp_that_promises(16_383, 16_383))
    yield "a JPEG 2000 that promises 4 billion x 4 billion", raw(jpeg2000_that_promises(0xFFFFFFFF, 0xFFFFFFFF))
    yield "a TIFF of 40 pages of 2,000 x 2,000", raw(tiff_of_pages(40, 2000, 2000))
    yield "a TIFF that promises 4 billion x 4 billion", raw(plain_tiff(width=0xFFFFFFFF, height=0xFFFFFFFF))


def too_much_metadata() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a JPEG with 2 MB of segments", raw(jpeg_with_segments(40, b"x" * 50_000))
    yield "a PNG with 2 MB of text", raw(with_chunks(chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000)))
    yield "a TIFF with 2 MB of XMP", raw(encode(grey_photo(), "TIFF", tiffinfo=tiff_info(700, b"x" * 2_000_000)))
    yield "a WebP with 2 MB of XMP", raw(encode(grey_photo(), "WEBP", lossless=True, xmp=b"x" * 2_000_000))
    yield "a JPEG 2000 with 2 MB of XML", raw(jpeg2000_with_box(b"xml ", b"x" * 2_000_000))


def jpeg2000_with_box(kind: bytes, content: bytes) -> bytes:
    return JPEG_2000[:32] + struct.pack(">L4s", 8 + len(content), kind) + content + JPEG_2000[32:]


def tiff_info(number: int, value: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[number] = value
    tags.tagtype[number] = 1
    return tags


def unsupported() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "an animated WebP", raw(animated("WEBP"))
    yield "an animated PNG", raw(animated("PNG"))
    yield "a TIFF of 101 pages", raw(tiff_of_pages(101))
    yield "a JPEG 2000 of 12 bits", raw(jpeg2000_that_promises(100, 100, depth=11))
    yield "a JPEG 2000 in CMYK", raw(JPEG_2000.replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x0c"))
    yield "a TIFF of floating-point samples", raw(encode(np.zeros((8, 8), np.float32), "TIFF"))


def bad_masks() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a mask of another size", {"files": {"image": PHOTO, "damage": SMALL_MASK}}
    yield "a mask of two pages", {"files": {"image": PHOTO, "damage": tiff_of_pages(2, 96, 128)}}
    yield "a mask for a photo of two pages", {"files": {"image": tiff_of_pages(2, 96, 128), "damage": MASK}}
    yield "a mask that is text", {"files": {"image": PHOTO, "protect": b"everywhere"}}
    yield "a mask cut short", {"files": {"image": PHOTO, "damage": MASK[:-20]}}
    yield "a mask that promises 65,000 x 65,000", {"files": {"image": PHOTO, "damage": png(65_000, 65_000)}}


def as_page(inputs: list[BadInput]) -> str:
    rows = "\n".join(f"| {each.name} | {each.status} | `{each.problem}` |" for each in inputs)
    return f"""# Bad inputs

What the service answers to {len(inputs)} bad inputs. `tests/service/test_bad_inputs.py` sends each to a running service
with limits of {MAX_UPLOAD_BYTES:,} bytes a body and {MAX_METADATA_BYTES:,} bytes of metadata, and holds it to this
table and to a bound of memory. `python -m tests.service.bad_inputs` writes it.

| input | status | problem |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    PAGE.write_text(as_page(bad_inputs()), encoding="utf-8")
