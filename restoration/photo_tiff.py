"""TIFF: grey, RGB, CMYK, palettes and black and white, up to 16 bits, of one page or many; classic or BigTIFF.

The file is kept, and changed where it must be: strips or tiles in which a sample has changed are encoded anew, in their
own compression, and put where the old ones were, or behind the file where they need more room and do not end it anyway.
So everything else stays byte for byte: all other strips and tiles, all tags, EXIF, maker notes, byte order, pages that
are undamaged.
JPEG inside TIFF, CCITT's fax codes and reversed bits (FillOrder 2) become deflate, for the whole page: a second lossy
pass would change undamaged samples, and no library at hand writes the other two.
Not kept once something has changed: reduced copies (thumbnails, pyramids), Photoshop's layers, and thumbnails in XMP
and Photoshop's resources, which would show the photo unrestored; but their bytes, and those of strips that moved, stay
in the file.
"""

import io
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import tifffile

from restoration.errors import PhotoUndecodable, UnsupportedPhoto
from restoration.photo_colours import ColourModel, Direct, Indexed, Samples, are_equal, grey_levels, usable_cmyk
from restoration.photo_history import History, add_history
from restoration.photo_jpeg import claimed_size
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_pillow import Plain
from restoration.photo_tags import (
    BYTE,
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    LONG,
    LONG8,
    ORIENTATION,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    UNDEFINED,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    Tag,
    Tags,
    TiffLayout,
    pack_directory,
    pack_tags,
    read_directories,
    read_layout,
    read_tags,
)
from restoration.photo_thumbnails import without_resource_thumbnail, without_xmp_thumbnail
from restoration.tiff_segments import (
    DEFLATE,
    HORIZONTAL,
    LOSSLESS,
    WITH_PREDICTOR,
    Scheme,
    Segmentation,
    encode_segment,
)

_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _NUM_CHANNELS, _STRIP_HEIGHT, _STRIP_BYTES = 266, 273, 277, 278, 279
_PLANES, _T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _PALETTE = 284, 292, 293, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _SUBDIRECTORIES = 322, 323, 324, 325, 330
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES, _DEPTH = 338, 339, 347, 32997
_YCBCR_TAGS = (529, 530, 531, 532)  # coefficients, subsampling, positioning, and reference black and white
_XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERS = 700, 33723, 34377, 34675, 37724
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _BY_PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_REDUCED, _TRANSPARENCY = 1, 4  # bits of NewSubfileType
_STRAIGHT_ALPHA = 2
_JPEG, _FAX = 7, (2, 3, 4)
_MAX_TILE_PX = 4096  # a side, of a photo that is smaller
_MAX_JPEG_HEADER_BYTES = 65_536
_MAX_PIECES = 1 << 17  # strips or tiles; 120 megapixels in 32 x 32 tiles

_RESOLUTION = (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)
_TEXTS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)  # titles, camera, page, software, date, people, rights
_WINDOWS = (18246, 18249, 40091, 40092, 40093, 40094, 40095)  # its Explorer's rating, title, comment ...
_COLOURS = (318, 319)  # white point, primaries
_DESCRIPTIVE_TAGS = frozenset((*_RESOLUTION, *_TEXTS, *_WINDOWS, *_COLOURS, ORIENTATION, EXIF_DIRECTORY, GPS_DIRECTORY))
_METADATA_TAGS = _DESCRIPTIVE_TAGS | {_XMP, _ICC, _IPTC, _PHOTOSHOP}
_LAYOUT_TAGS = frozenset(
    (
        *(_NEW_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS),
        *(_NUM_CHANNELS, _STRIP_HEIGHT, _STRIP_BYTES, _PLANES, _PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT),
        *(_TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DEPTH),
    )
)
# What is no longer so when a page becomes deflate
_COMPRESSION_TAGS = frozenset((_FILL_ORDER, _T4_OPTIONS, _T6_OPTIONS, _JPEG_TABLES, *_YCBCR_TAGS))
_PLAIN_KINDS: Mapping[str, tuple[int, bool]] = {
    "L": (_BLACK_IS_ZERO, False),
    "LA": (_BLACK_IS_ZERO, True),
    "RGB": (_RGB, False),
    "RGBA": (_RGB, True),
    "CMYK": (_INKS, False),
}


@dataclass(frozen=True)
class TiffTraits:
    """directory: the page's own; segmentation: how the page is cut; offsets and num_bytes: of its strips or tiles;
    scheme: how they are encoded; photometric: TIFF's number for what samples mean; is_lossless: whether they were
    encoded so; is_rewritable: whether one can be encoded anew alone."""

    directory: Directory
    segmentation: Segmentation
    offsets: tuple[int, ...]
    num_bytes: tuple[int, ...]
    scheme: Scheme
    photometric: int
    is_lossless: bool
    is_rewritable: bool


def open_tiff(encoded: bytes, check_size: Callable[[int, int], None], max_pages: int) -> list[OpenedPhoto]:
    """The pages that are photos: reduced copies and transparency masks are none. Raises PhotoError and ValueError."""
    file, pages = tifffile.TiffFile(io.BytesIO(encoded)), []
    for index, directory in enumerate(read_directories(encoded)):
        if index == max_pages:
            raise UnsupportedPhoto(f"the TIFF has more than {max_pages} pages; send fewer at a time")
        layout = read_tags(encoded, _LAYOUT_TAGS, is_strict=True, at=directory.offset)
        if kind := _number(layout, _NEW_SUBFILE_TYPE, 0) & (_REDUCED | _TRANSPARENCY):
            if index == 0:
                raise UnsupportedPhoto(
                    f"the TIFF's first picture is a {'reduced copy' if kind & _REDUCED else 'mask'}, as in raw camera "
                    "files, and the photo itself is elsewhere in the file; convert it to a plain TIFF"
                )
            continue
        check_size(_number(layout, _HEIGHT, 0), _number(layout, _WIDTH, 0))
        pages.append(_open_page(encoded, file, index, directory, layout))
    if not pages:
        raise PhotoUndecodable("the TIFF has no directory: it is truncated or damaged; send it again, whole")
    return pages


def rewrite_tiff(
    encoded: bytes,
    pages: Sequence[tuple[TiffTraits, Samples]],
    after: Sequence[Samples],
    history: History | None = None,
) -> bytes:
    """`encoded`, of whose pages each has the samples that go with it, with the samples `after` instead."""
    file, layout = bytearray(encoded), read_layout(encoded)
    num_uses = Counter(offset for page, _ in pages for offset in page.offsets)
    new_offsets = {}
    for (page, before), samples in zip(pages, after, strict=True):
        changed = [
            index for index, box in enumerate(page.segmentation.boxes()) if not are_equal(before[box], samples[box])
        ]
        if changed:
            tags = _write_segments(file, page, samples, changed, num_uses)
            tags |= _fresh_metadata(read_tags(encoded, (_XMP, _PHOTOSHOP), at=page.directory.offset), history)
            new_offsets[page.directory.offset] = _write_directory(file, layout, page, tags)
    _link(file, layout, list(read_directories(encoded)), new_offsets)
    return bytes(file)


def write_tiff(pages: Sequence[tuple[Plain, Metadata]]) -> bytes:
    """Written losslessly, by deflate, with the tags that the metadata give."""
    output = io.BytesIO()
    with tifffile.TiffWriter(output, byteorder="<") as writer:
        for (samples, mode), _ in pages:
            photometric, has_alpha = _PLAIN_KINDS[mode]
            writer.write(
                samples[:, :, 0] if samples.shape[2] == 1 else samples,
                photometric=photometric,
                planarconfig=None if samples.shape[2] == 1 else 1,
                extrasamples=[_STRAIGHT_ALPHA] if has_alpha else None,
                compression=DEFLATE,
                predictor=True,
                metadata=None,
                software=False,
                contiguous=False,
            )
    file, layout = bytearray(output.getbuffer()), TiffLayout()
    directories = list(read_directories(output.getvalue()))
    new_offsets = {}
    for directory, (_, metadata) in zip(directories, pages, strict=True):
        offset = _end_of(file)
        file += pack_directory(_tags_from_metadata(metadata), offset, directory.entries, layout)
        new_offsets[directory.offset] = offset
    _link(file, layout, directories, new_offsets)
    return bytes(file)


def _open_page(encoded: bytes, file: tifffile.TiffFile, index: int, directory: Directory, layout: Tags) -> OpenedPhoto:
    _check_kind(layout)
    tags = read_tags(encoded, _METADATA_TAGS, at=directory.offset)
    exif = pack_tags({number: tag for number, tag in tags.items() if number in _DESCRIPTIVE_TAGS})
    metadata = read_metadata({"icc_profile": _data(tags, _ICC), "xmp": _data(tags, _XMP)}, exif)
    metadata = replace(metadata, captions=_captions_of(tags))
    traits = _read_traits(encoded, directory, layout)
    segmentation = traits.segmentation
    return OpenedPhoto(
        segmentation.height_px,
        segmentation.width_px,
        _colours_of(layout, metadata),
        lambda: _read_samples(file, index, segmentation),
        metadata,
        traits,
    )


def _read_traits(encoded: bytes, directory: Directory, layout: Tags) -> TiffTraits:
    is_tiled = _TILE_OFFSETS in layout
    offsets = _numbers(layout, _TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ())
    num_bytes = _numbers(layout, _TILE_BYTES if is_tiled else _STRIP_BYTES, ())
    height_px, width_px = _number(layout, _HEIGHT, 0), _number(layout, _WIDTH, 0)
    strip_height_px = min(_number(layout, _STRIP_HEIGHT, height_px), height_px)
    segmentation = Segmentation(
        height_px,
        width_px,
        _number(layout, _NUM_CHANNELS, 1),
        _number(layout, _TILE_HEIGHT, 0) if is_tiled else strip_height_px,
        _number(layout, _TILE_WIDTH, 0) if is_tiled else width_px,
        is_tiled,
        _number(layout, _PLANES, 1) == 2,
    )
    _check_segments(encoded, segmentation, offsets, num_bytes)
    compression = _number(layout, _COMPRESSION, 1)
    traits = TiffTraits(
        directory,
        segmentation,
        offsets,
        num_bytes,
        Scheme(compression, _number(layout, _PREDICTOR, 1), _number(layout, _BITS, 1), read_layout(encoded).order),
        _number(layout, _PHOTOMETRIC, _BLACK_IS_ZERO),
        is_lossless=compression != _JPEG,
        is_rewritable=compression in LOSSLESS and _number(layout, _FILL_ORDER, 1) == 1,
    )
    if compression == _JPEG:
        _check_jpegs(encoded, traits)
    return traits


def _check_segments(
    encoded: bytes, segmentation: Segmentation, offsets: tuple[int, ...], num_bytes: tuple[int, ...]
) -> None:
    if not offsets or not all(segmentation[:5]):
        raise PhotoUndecodable(
            "the TIFF's directory names no picture: it is truncated or damaged; send it again, whole"
        )
    if max(len(offsets), segmentation.num_segments) > _MAX_PIECES:
        raise PhotoUndecodable(
            f"the TIFF is cut into {max(len(offsets), segmentation.num_segments):,} pieces; "
            f"at most {_MAX_PIECES:,} are read"
        )
    are_whole = len(offsets) == len(num_bytes) == segmentation.num_segments and all(
        size and start + size <= len(encoded) for start, size in zip(offsets, num_bytes, strict=True)
    )
    if not are_whole:
        raise PhotoUndecodable("strips or tiles of the TIFF are missing: it is truncated; send it again, whole")
    # Room for a whole tile, or for what a JPEG claims to be, is taken before anything is decoded
    if max(segmentation[3:5]) > max(*segmentation[:2], _MAX_TILE_PX):
        raise PhotoUndecodable("the TIFF's tiles are far larger than it is; save it anew")


def _check_jpegs(encoded: bytes, page: TiffTraits) -> None:
    """Where tables stand apart, the pieces have none, but they have headers."""
    for start, size in zip(page.offsets, page.num_bytes, strict=True):
        height_px, width_px = claimed_size(encoded[start : start + min(size, _MAX_JPEG_HEADER_BYTES)])
        if height_px > page.segmentation.segment_height_px or width_px > page.segmentation.segment_width_px:
            raise PhotoUndecodable("a JPEG inside the TIFF is larger than its strip or tile; save it anew")


def _read_samples(file: tifffile.TiffFile, index: int, segmentation: Segmentation) -> Samples:
    page = file.pages[index]
    assert isinstance(page, tifffile.TiffPage)
    planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, C)
    samples = np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]
    if samples.dtype == np.bool_:
        samples = samples.view(np.uint8)
    expected = segmentation[:3]
    if samples.shape != expected or samples.dtype.itemsize > 2:
        raise PhotoUndecodable(f"the TIFF's samples are {samples.shape}, but its directory says {expected}")
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def _check_kind(layout: Tags) -> None:
    bits, compression = set(_numbers(layout, _BITS, (1,))), _number(layout, _COMPRESSION, 1)
    photometric, num_channels = _number(layout, _PHOTOMETRIC, _BLACK_IS_ZERO), _number(layout, _NUM_CHANNELS, 1)
    if compression not in LOSSLESS and compression not in (_JPEG, *_FAX):
        raise UnsupportedPhoto(f"the TIFF's compression {compression} is not taken; save it with LZW or deflate")
    if set(_numbers(layout, _SAMPLE_FORMAT, (1,))) != {1}:
        raise UnsupportedPhoto("the TIFF's samples are not unsigned whole numbers, and only those are taken")
    if not any(bits == {taken} for taken in ((1, 2, 4, 8, 16) if num_channels == 1 else (8, 16))):
        raise UnsupportedPhoto(
            f"the TIFF has {' + '.join(map(str, sorted(bits)[:8]))} bits a channel, but only 8 and 16 are taken, "
            "and 1, 2 and 4 of grey or a palette; save it with 8 or 16 bits a channel"
        )
    if _number(layout, _PREDICTOR, 1) not in (1, HORIZONTAL) or _number(layout, _DEPTH, 1) != 1:
        raise UnsupportedPhoto("the TIFF holds a volume, or a predictor for other samples; save it as a plain TIFF")
    # Some readers pass over such a tag and others add samples up, so that nobody knows what the photo looks like
    is_predictable = compression in WITH_PREDICTOR and bits <= {8, 16}
    if _number(layout, _PREDICTOR, 1) == HORIZONTAL and not is_predictable and compression != _JPEG:
        raise UnsupportedPhoto(
            f"the TIFF has a predictor where there is none, at {max(bits)} bits a channel and compression "
            f"{compression}; save it anew, with LZW or deflate if it is to have one"
        )
    extra_channels = _numbers(layout, _EXTRA_SAMPLES, ())
    if extra_channels not in ((), (_STRAIGHT_ALPHA,)):
        raise UnsupportedPhoto(
            f"the TIFF has extra channels of the kinds {extra_channels[:8]} (0 unspecified, 1 premultiplied alpha, 2 "
            "straight alpha), but one of straight alpha is all that is taken; save it without, or with straight alpha"
        )
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _BY_PALETTE: 1, _INKS: 4, _YCBCR: 3}.get(photometric)
    is_odd = (photometric == _YCBCR) != (compression == _JPEG and photometric not in (_BLACK_IS_ZERO, _RGB))
    if colours is None or num_channels != colours + len(extra_channels) or is_odd:
        raise UnsupportedPhoto(
            f"the TIFF has {num_channels} channels of photometric interpretation {photometric}, compression "
            f"{compression}; only grey, RGB, CMYK and palettes are taken; convert it to one of these"
        )
    if extra_channels and photometric not in (_BLACK_IS_ZERO, _RGB):
        raise UnsupportedPhoto("the TIFF has an alpha channel beside inks or a palette; save it without")
    if photometric == _BY_PALETTE and max(bits) > 8:
        raise UnsupportedPhoto("the TIFF has a palette of more than 256 colours; convert it to RGB")


def _colours_of(layout: Tags, metadata: Metadata) -> ColourModel:
    photometric, num_bits = _number(layout, _PHOTOMETRIC, _BLACK_IS_ZERO), _number(layout, _BITS, 1)
    has_alpha = _EXTRA_SAMPLES in layout
    if photometric == _BY_PALETTE:
        return _read_palette(layout, num_bits)
    if photometric == _INKS:
        return usable_cmyk(metadata.icc_profile)
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        is_inverted = photometric == _WHITE_IS_ZERO
        return grey_levels(num_bits, is_inverted=is_inverted) if num_bits < 8 else Direct(1, has_alpha, is_inverted)
    return Direct(3, has_alpha)


def _read_palette(layout: Tags, num_bits: int) -> Indexed:
    planes = np.array(_numbers(layout, _PALETTE, ()), np.uint16).reshape(3, 1 << num_bits)
    if planes.max() > 255:  # some write 8-bit values, as libtiff's readers know
        planes >>= 8
    table = np.full((1 << num_bits, 4), 255, np.uint8)
    table[:, :3] = planes.T
    return Indexed(table.tobytes(), "palette")


def _write_segments(
    file: bytearray, page: TiffTraits, samples: Samples, changed: Sequence[int], num_uses: Mapping[int, int]
) -> Tags:
    """Those that have changed, or all of them as deflate if none can be written alone. Returns the tags that say so."""
    offsets, num_bytes, scheme = list(page.offsets), list(page.num_bytes), page.scheme
    tags: Tags = {}
    if not page.is_rewritable:
        scheme = scheme._replace(compression=DEFLATE, predictor=1 if scheme.num_bits < 8 else HORIZONTAL)
        changed = range(len(offsets))
        tags[_COMPRESSION], tags[_PREDICTOR] = _shorts(scheme.compression), _shorts(scheme.predictor)
        tags[_PHOTOMETRIC] = _shorts(_RGB if page.photometric == _YCBCR else page.photometric)
    boxes = list(page.segmentation.boxes())
    for index in changed:
        start, end = offsets[index], offsets[index] + num_bytes[index]
        is_last, is_shared = end == len(file), num_uses[start] > 1
        room_bytes = inf if is_last or is_shared else end - start
        segment = encode_segment(page.segmentation.pad(samples[boxes[index]]), scheme, room_bytes)
        if len(segment) > room_bytes or is_shared:
            start = offsets[index] = _end_of(file)
        file[start : start + len(segment)] = segment
        num_bytes[index] = len(segment)
    is_tiled = page.segmentation.is_tiled
    tags[_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS] = Tag(LONG8, np.array(offsets, "<u8").tobytes())
    tags[_TILE_BYTES if is_tiled else _STRIP_BYTES] = Tag(LONG8, np.array(num_bytes, "<u8").tobytes())
    return tags


def _fresh_metadata(tags: Tags, history: History | None) -> Tags:
    """XMP with the history, and what of XMP and Photoshop's resources held a thumbnail without it."""
    fresh: Tags = {}
    xmp, resources = _data(tags, _XMP), _data(tags, _PHOTOSHOP)
    cut = without_xmp_thumbnail(xmp) if xmp else None
    if history:
        cut = add_history(cut, history)
    if cut and cut != xmp:
        fresh[_XMP] = Tag(BYTE, cut)
    if resources and (kept := without_resource_thumbnail(resources)) != resources:
        fresh[_PHOTOSHOP] = Tag(BYTE, kept)
    return fresh


def _captions_of(tags: Tags) -> Tags:
    captions = {number: tags[number] for number in (_IPTC, _PHOTOSHOP) if number in tags}
    if resources := _data(tags, _PHOTOSHOP):
        captions[_PHOTOSHOP] = Tag(BYTE, without_resource_thumbnail(resources))
    return captions


def _write_directory(file: bytearray, layout: TiffLayout, page: TiffTraits, new_tags: Tags) -> int:
    """The page's directory anew, at the end of the file; returns where."""
    stale = {_SUBDIRECTORIES, _LAYERS} | (set() if page.is_rewritable else _COMPRESSION_TAGS)
    entries = {number: entry for number, entry in page.directory.entries.items() if number not in stale}
    tags = {number: tag if layout.is_big else _narrow(tag) for number, tag in new_tags.items()}
    offset = _end_of(file)
    file += pack_directory(tags, offset, entries, layout)
    return offset


def _link(
    file: bytearray, layout: TiffLayout, directories: Sequence[Directory], new_offsets: Mapping[int, int]
) -> None:
    """Chain the directories, the new ones in place of the old, past reduced copies if anything is new."""
    link_at = layout.first_link_at
    for directory in directories:
        kind = directory.entries.get(_NEW_SUBFILE_TYPE)
        if kind and new_offsets and _inline_number(kind, layout) & _REDUCED:
            continue
        offset = new_offsets.get(directory.offset, directory.offset)
        layout.offset.pack_into(file, link_at, offset)
        (num_tags,) = layout.num_tags.unpack_from(file, offset)
        link_at = offset + layout.num_tags.size + num_tags * layout.entry.size
    layout.offset.pack_into(file, link_at, 0)


def _inline_number(entry: bytes, layout: TiffLayout) -> int:
    """NewSubfileType is a LONG, but some write a SHORT."""
    _, type_, _, field = layout.entry.unpack(entry)
    (number,) = struct.unpack_from(layout.order + ("H" if type_ == SHORT else "L"), field)
    return int(number)


def _end_of(file: bytearray) -> int:
    """Where the next part goes: offsets are even."""
    if len(file) % 2:
        file.append(0)
    return len(file)


def _shorts(*numbers: int) -> Tag:
    return Tag(SHORT, struct.pack(f"<{len(numbers)}H", *numbers))


def _narrow(tag: "Tag | Tags") -> "Tag | Tags":
    if not isinstance(tag, Tag) or tag.type != LONG8:
        return tag
    return Tag(LONG, np.frombuffer(tag.data, "<u8").astype("<u4").tobytes())


def _numbers(tags: Tags, number: int, default: tuple[int, ...]) -> tuple[int, ...]:
    tag = tags.get(number)
    if not isinstance(tag, Tag):
        return default
    return (tag.numbers() if tag.type in (BYTE, SHORT, LONG, LONG8) else ()) or default


def _number(tags: Tags, number: int, default: int) -> int:
    return _numbers(tags, number, (default,))[0]


def _data(tags: Tags, number: int) -> bytes | None:
    tag = tags.get(number)
    return tag.data if isinstance(tag, Tag) else None


def _tags_from_metadata(metadata: Metadata) -> Tags:
    tags = read_tags(metadata.exif, _DESCRIPTIVE_TAGS) if metadata.exif else {}
    tags |= metadata.captions
    if metadata.icc_profile:
        tags[_ICC] = Tag(UNDEFINED, metadata.icc_profile)
    if metadata.xmp:
        tags[_XMP] = Tag(BYTE, metadata.xmp)
    if metadata.dpi and not {X_RESOLUTION, Y_RESOLUTION} <= tags.keys():
        for number, dpi in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            tags[number] = Tag(RATIONAL, struct.pack("<LL", round(dpi * 1000), 1000))
        tags[RESOLUTION_UNIT] = Tag(SHORT, struct.pack("<H", 2))
    return tags
