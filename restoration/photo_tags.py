"""TIFF directories of tags, which are also what EXIF is: read, written, and cut down, with every value as it came.

Pillow reads tags into Python numbers and text and writes them back with guessed types; here values stay bytes.
Format: TIFF 6.0, section 2; BigTIFF (read only); EXIF 2.32, section 4.6. Broken tags are left out, they never raise.
"""

import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 34665, 34853, 40965
MAX_TAGS = 4096

_SUBDIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)
# How many bytes turn round together when the byte order changes, and how many bytes one value has.
_WORD_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 18: 8}
_VALUE_BYTES = _WORD_BYTES | {5: 8, 10: 8}
_POINTERS = (LONG, 13, 16, 18)


class Tag(NamedTuple):
    """One tag's values: TIFF's number for their type, and the bytes, little-endian."""

    type: int
    data: bytes

    @property
    def num_values(self) -> int:
        return len(self.data) // _VALUE_BYTES[self.type]

    def numbers(self) -> tuple[int, ...]:
        """The values of a tag of unsigned whole numbers."""
        return tuple(np.frombuffer(self.data, f"<u{_WORD_BYTES[self.type]}").tolist())


Tags: TypeAlias = "dict[int, Tag | Tags]"


def read_tags(structure: bytes, wanted: Collection[int] | None = None, *, is_strict: bool = False) -> Tags:
    """The first directory of `structure` (a TIFF file, or EXIF without its prefix), with its EXIF, GPS and
    interoperability directories below it. `wanted` names the tags of the first directory to read: none means all.
    is_strict: what is broken or missing raises ValueError instead of being left out."""
    order = "<" if structure[:2] == b"II" else ">"
    is_big = structure[2:4] in (b"\x2b\0", b"\0\x2b")
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "L"), structure, 8 if is_big else 4)
        return _Reader(structure, order, is_big, is_strict).read_directory(offset, wanted, depth=0)
    except struct.error as error:
        if is_strict:
            raise ValueError("its directory of tags is cut off") from error
        return {}


def pack_tags(tags: Mapping[int, "Tag | Tags"]) -> bytes:
    """A TIFF structure of nothing but `tags`: what EXIF is, without its prefix."""
    return b"II*\0" + struct.pack("<L", 8) + pack_directory(tags, offset=8)


def pack_directory(
    tags: Mapping[int, "Tag | Tags"], offset: int, packed_entries: Mapping[int, bytes] | None = None
) -> bytes:
    """A directory that will stand at `offset` (even), with the values that it points to behind it.
    `packed_entries` are further entries of 12 bytes, whose values are elsewhere already."""
    entries = dict(packed_entries or {})
    values = bytearray()
    values_offset = offset + 2 + 12 * len(entries.keys() | tags.keys()) + 4
    for number, tag in tags.items():
        here = values_offset + len(values)
        if isinstance(tag, dict):
            entries[number] = struct.pack("<HHLL", number, LONG, 1, here)
            values += pack_directory(tag, here)
        elif len(tag.data) <= 4:
            entries[number] = struct.pack("<HHL4s", number, tag.type, tag.num_values, tag.data)
        else:
            entries[number] = struct.pack("<HHLL", number, tag.type, tag.num_values, here)
            values += tag.data
        values += b"\0" * (len(values) % 2)
    directory = b"".join(entries[number] for number in sorted(entries))
    return struct.pack("<H", len(entries)) + directory + struct.pack("<L", 0) + bytes(values)


def without_thumbnail(exif: bytes) -> bytes:
    """`exif` (no prefix) with the link to its second directory, the thumbnail's, cut: the thumbnail would show the
    photo unrestored. Nothing moves, so that maker notes, which hold offsets, stay readable."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return exif
    (offset,) = struct.unpack_from(order + "L", exif, 4)
    if offset + 2 > len(exif):
        return exif
    (num_tags,) = struct.unpack_from(order + "H", exif, offset)
    link = offset + 2 + 12 * num_tags
    return exif[:link] + bytes(4) + exif[link + 4 :] if link + 4 <= len(exif) else exif


class _Reader:
    def __init__(self, structure: bytes, order: str, is_big: bool, is_strict: bool) -> None:
        self.structure, self.order, self.is_strict = structure, order, is_strict
        self.num_format = order + ("Q" if is_big else "H")
        self.entry = struct.Struct(order + ("HHQ8s" if is_big else "HHL4s"))
        # Tags may overlap: without a budget, 4096 tags could each hold the whole file.
        self.budget_bytes = len(structure)

    def read_directory(self, offset: int, wanted: Collection[int] | None, depth: int) -> Tags:
        tags: Tags = {}
        try:
            (num_tags,) = struct.unpack_from(self.num_format, self.structure, offset)
            first = offset + struct.calcsize(self.num_format)
            for index in range(min(num_tags, MAX_TAGS)):
                number, type_, count, field = self.entry.unpack_from(self.structure, first + index * self.entry.size)
                if number in tags or type_ not in _WORD_BYTES or (wanted is not None and number not in wanted):
                    continue
                tag = self._read_values(type_, count, field)
                if tag is None:
                    if self.is_strict:
                        raise ValueError(f"the values of its tag {number} lie outside the file")
                    continue
                if number not in _SUBDIRECTORIES:
                    tags[number] = tag
                elif tag.type in _POINTERS and tag.num_values == 1 and depth < 2:
                    below = self.read_directory(tag.numbers()[0], None, depth + 1)
                    if below:
                        tags[number] = below
        except struct.error:  # the directory ends early: what was read before stands
            if self.is_strict:
                raise
        return tags

    def _read_values(self, type_: int, count: int, field: bytes) -> Tag | None:
        num_bytes = count * _VALUE_BYTES[type_]
        if num_bytes <= len(field):
            data = field[:num_bytes]
        else:
            (start,) = struct.unpack(self.order + ("Q" if len(field) == 8 else "L"), field)
            if not num_bytes or num_bytes > self.budget_bytes or start + num_bytes > len(self.structure):
                return None
            self.budget_bytes -= num_bytes
            data = self.structure[start : start + num_bytes]
        word = _WORD_BYTES[type_]
        if self.order == ">" and word > 1:
            data = np.frombuffer(data, f"u{word}").byteswap().tobytes()
        return Tag(type_, data)
