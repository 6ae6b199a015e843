"""Which format bytes are in, by their first few: asked before any decoder sees them."""

from typing import Literal, TypeAlias

from restoration.errors import PhotoUndecodable, UnsupportedFormat

PhotoFormat: TypeAlias = Literal["jpeg", "png", "webp", "tiff", "jp2", "j2k"]
"""jp2, j2k: JPEG 2000, as a file with metadata and as a bare codestream."""

_TAKEN = "JPEG, PNG, WebP, TIFF and JPEG 2000"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000, _CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop document"),
    (b"BM", "a BMP"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\0\1\0", "an icon"),
)
_BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF", b"avif": "an AVIF"}


def recognise_format(encoded: bytes) -> PhotoFormat:
    """Raises UnsupportedFormat, naming what the bytes are if they are anything common."""
    start = encoded[:512]
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    if start.startswith(_TIFF):
        return "tiff"
    if start.startswith(_JPEG_2000):
        return "jp2"
    if start.startswith(_CODESTREAM):
        return "j2k"
    if not encoded:
        raise PhotoUndecodable(f"the photo is empty (0 bytes); send a {_TAKEN} file")
    raise UnsupportedFormat(f"found {_name_other(start)}, but only {_TAKEN} are taken; convert it to one of these")


def _name_other(start: bytes) -> str:
    for magic, name in _OTHERS:
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "a video or an image of the ISO media family")
    if _is_text(start):
        return "text"
    return f"an unknown format (it begins with {start[:8].hex(' ')})"


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", "ignore")
    is_utf8 = len(text.encode()) >= len(start) - 3  # a character may be cut in two at the end
    return is_utf8 and all(character.isprintable() or character.isspace() for character in text)
