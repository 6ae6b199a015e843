"""TIFF directories of tags, which are also what EXIF is: read, written, and cut down, with every value as it came.

Pillow reads tags into Python numbers and text and writes them back with guessed types; here values stay bytes.
Format: TIFF 6.0, section 2; BigTIFF; EXIF 2.32, section 4.6. Broken tags are left out, unless `is_strict`; a
broken chain of directories raises ValueError.
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 34665, 34853, 40965
MAX_TAGS = 4096
EXIF_PREFIX = b"Exif\0\0"
"""What a JPEG has in front of its EXIF, and some writers of other formats, too."""

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


class TiffLayout(NamedTuple):
    """order: of bytes, as struct has it; is_big: BigTIFF, whose counts and offsets have 8 bytes."""

    order: Literal["<", ">"] = "<"
    is_big: bool = False

    @property
    def entry(self) -> struct.Struct:
        """Tag number, type, number of values, and the values or where they are."""
        return struct.Struct(self.order + ("HHQ8s" if self.is_big else "HHL4s"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.is_big else "L"))

    @property
    def num_tags(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.is_big else "H"))

    @property
    def first_link_at(self) -> int:
        """Where the first directory's offset stands."""
        return 8 if self.is_big else 4


class Directory(NamedTuple):
    """offset: where it begins; entries: by tag number, as they stand in the file; link_at: where the next directory's
    offset stands."""

    offset: int
    entries: dict[int, bytes]
    link_at: int


def read_layout(structure: bytes) -> TiffLayout:
    """Of a TIFF file, or of EXIF without its prefix."""
    return TiffLayout("<" if structure[:2] == b"II" else ">", structure[2:4] in (b"\x2b\0", b"\0\x2b"))


def read_directories(structure: bytes) -> Iterator[Directory]:
    """The chain of them, as the first links to the second, and so on. Raises ValueError where it leads nowhere or in a
    circle."""
    layout, seen = read_layout(structure), set()
    link_at = layout.first_link_at
    try:
        while offset := layout.offset.unpack_from(structure, link_at)[0]:
            if offset in seen:
                raise ValueError("its directories lead in a circle")
            seen.add(offset)
            (num_tags,) = layout.num_tags.unpack_from(structure, offset)
            if num_tags > MAX_TAGS:
                raise ValueError(f"a directory has {num_tags:,} tags; at most {MAX_TAGS:,} are read")
            first = offset + layout.num_tags.size
            link_at = first + num_tags * layout.entry.size
            packed = [structure[at : at + layout.entry.size] for at in range(first, link_at, layout.entry.size)]
            entries = {
                layout.entry.unpack(entry)[0]: entry for entry in reversed(packed)
            }  # the first of several counts
            yield Directory(offset, entries, link_at)
    except (struct.error, OverflowError) as error:
        raise ValueError("a directory of tags is cut off") from error


def read_tags(
    structure: bytes, wanted: Collection[int] | None = None, *, is_strict: bool = False, at: int | None = None
) -> Tags:
    """The directory at an offset, the first one if none is given, of `structure` (a TIFF file, or EXIF without its
    prefix), with its EXIF, GPS and interoperability directories below it. `wanted` names its tags to read: none means
    all. is_strict: what is broken or missing raises ValueError instead of being left out."""
    layout = read_layout(structure)
    try:
        offset = layout.offset.unpack_from(structure, layout.first_link_at)[0] if at is None else at
        return _Reader(structure, layout, is_strict).read_directory(offset, wanted, depth=0)
    except (struct.error, OverflowError) as error:
        if is_strict:
            raise ValueError("its directory of tags is cut off") from error
        return {}


def pack_tags(tags: Mapping[int, "Tag | Tags"]) -> bytes:
    """A TIFF structure of nothing but `tags`: what EXIF is, without its prefix."""
    return b"II*\0" + struct.pack("<L", 8) + pack_directory(tags, offset=8)


def pack_directory(
    tags: Mapping[int, "Tag | Tags"],
    offset: int,
    packed_entries: Mapping[int, bytes] | None = None,
    layout: TiffLayout | None = None,
) -> bytes:
    """A directory that will stand at `offset` (even), with the values that it points to behind it, and no link to a
    next one. `packed_entries` are further entries, whose values are elsewhere already; a tag takes the place of one."""
    layout = layout or TiffLayout()
    entries = dict(packed_entries or {})
    num_entries = len(entries.keys() | tags.keys())
    values = bytearray()
    values_offset = offset + layout.num_tags.size + layout.entry.size * num_entries + layout.offset.size
    for number, tag in tags.items():
        here = values_offset + len(values)
        if isinstance(tag, dict):
            entries[number] = layout.entry.pack(number, LONG, 1, struct.pack(layout.order + "L", here))
            values += pack_directory(tag, here, layout=layout)
        elif len(tag.data) <= layout.offset.size:
            entries[number] = layout.entry.pack(number, tag.type, tag.num_values, _in_order(tag, layout))
        else:
            entries[number] = layout.entry.pack(number, tag.type, tag.num_values, layout.offset.pack(here))
            values += _in_order(tag, layout)
        values += b"\0" * (len(values) % 2)
    directory = b"".join(entries[number] for number in sorted(entries))
    return layout.num_tags.pack(num_entries) + directory + layout.offset.pack(0) + bytes(values)


def _in_order(tag: Tag, layout: TiffLayout) -> bytes:
    """A tag's data between little-endian and the file's order, either way."""
    word_bytes = _WORD_BYTES[tag.type]
    if layout.order == "<" or word_bytes == 1:
        return tag.data
    return np.frombuffer(tag.data, f"u{word_bytes}").byteswap().tobytes()


def without_thumbnail(exif: bytes) -> bytes:
    """`exif`, with its prefix or without, with the link to its second directory, the thumbnail's, cut: the thumbnail
    would show the photo unrestored. Nothing moves, so that maker notes, which hold offsets, stay readable."""
    start = len(EXIF_PREFIX) if exif.startswith(EXIF_PREFIX) else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None or len(exif) < start + 8:
        return exif
    (offset,) = struct.unpack_from(order + "L", exif, start + 4)
    if start + offset + 2 > len(exif):
        return exif
    (num_tags,) = struct.unpack_from(order + "H", exif, start + offset)
    link = start + offset + 2 + 12 * num_tags
    return exif[:link] + bytes(4) + exif[link + 4 :] if link + 4 <= len(exif) else exif


class _Reader:
    def __init__(self, structure: bytes, layout: TiffLayout, is_strict: bool) -> None:
        self.structure, self.layout, self.is_strict = structure, layout, is_strict
        # Tags may overlap: without a budget, 4096 tags could each hold the whole file.
        self.budget_bytes = len(structure)

    def read_directory(self, offset: int, wanted: Collection[int] | None, depth: int) -> Tags:
        tags: Tags = {}
        entry = self.layout.entry
        try:
            (num_tags,) = self.layout.num_tags.unpack_from(self.structure, offset)
            first = offset + self.layout.num_tags.size
            for index in range(min(num_tags, MAX_TAGS)):
                number, type_, count, field = entry.unpack_from(self.structure, first + index * entry.size)
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
        except (struct.error, OverflowError):  # the directory ends early: what was read before stands
            if self.is_strict:
                raise
        return tags

    def _read_values(self, type_: int, count: int, field: bytes) -> Tag | None:
        num_bytes = count * _VALUE_BYTES[type_]
        if num_bytes <= len(field):
            data = field[:num_bytes]
        else:
            (start,) = self.layout.offset.unpack(field)
            if not num_bytes or num_bytes > self.budget_bytes or start + num_bytes > len(self.structure):
                return None
            self.budget_bytes -= num_bytes
            data = self.structure[start : start + num_bytes]
        return Tag(type_, _in_order(Tag(type_, data), self.layout))
