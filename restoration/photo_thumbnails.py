"""Thumbnails outside of the EXIF: Photoshop's and XMP's. They would show the photo unrestored, and are cut out.

Blocks and packets that are not laid out as their specifications say stay as they are.
"""

import struct

_RESOURCE = b"8BIM"
_THUMBNAILS = (1033, 1036)  # Photoshop's file format, "image resource IDs"
_XMP_ELEMENTS = (b"xmp:Thumbnails", b"xap:Thumbnails")  # XMP, part 2: today's prefix, and that of older writers


def without_resource_thumbnail(block: bytes) -> bytes:
    """block: Photoshop's image resources, one after the other."""
    kept, position = [], 0
    while position < len(block):
        end = _end_of_resource(block, position)
        if end is None:
            return block
        (number,) = struct.unpack_from(">H", block, position + 4)
        if number not in _THUMBNAILS:
            kept.append(block[position:end])
        position = end
    return b"".join(kept)


def without_xmp_thumbnail(xmp: bytes) -> bytes:
    """The packet less the elements that hold thumbnails; nothing else in it moves."""
    for name in _XMP_ELEMENTS:
        pieces, position = [], 0
        while (start := xmp.find(b"<" + name + b">", position)) >= 0:
            closing = b"</" + name + b">"
            if (end := xmp.find(closing, start)) < 0:
                break
            pieces.append(xmp[position:start])
            position = end + len(closing)
        xmp = b"".join((*pieces, xmp[position:])) if pieces else xmp
    return xmp


def _end_of_resource(block: bytes, start: int) -> int | None:
    """None for what is no resource: signature, number, name and data, the latter two padded to even lengths."""
    if block[start : start + 4] != _RESOURCE or start + 7 > len(block):
        return None
    name_bytes = block[start + 6] + 1
    size_at = start + 6 + name_bytes + name_bytes % 2
    if size_at + 4 > len(block):
        return None
    (num_bytes,) = struct.unpack_from(">L", block, size_at)
    end = size_at + 4 + num_bytes
    return min(end + num_bytes % 2, len(block)) if end <= len(block) else None
