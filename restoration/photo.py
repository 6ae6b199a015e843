"""Bytes to `Photo` and back.

A photo is kept as it is stored: its orientation tag is carried, not applied; its colour profile is carried, not
converted; its samples keep their depth. What each format keeps, and what it can't, stands at the top of `photo_jpeg`,
`photo_png`, `photo_webp`, `photo_tiff` and `photo_jpeg2000`. On the way to another format a photo takes its ICC
profile, EXIF, XMP and resolution along, each where the new format has room for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from restoration.errors import InvalidOption, PhotoError, PhotoTooLarge, PhotoUndecodable
from restoration.photo_colours import Bytes, Cmyk, ColourModel, Floats, Samples, are_equal, to_8_bit
from restoration.photo_history import History, add_history
from restoration.photo_jpeg import MAX_SIDE_PX as JPEG_MAX_SIDE_PX
from restoration.photo_jpeg import (
    JpegTraits,
    open_jpeg,
    quality_without_artifacts,
    reencode_jpeg,
    rewrite_jpeg,
    write_jpeg,
)
from restoration.photo_jpeg2000 import Jpeg2000Traits, open_jpeg2000, rewrite_jpeg2000, write_jpeg2000
from restoration.photo_kinds import PhotoFormat, recognise_format
from restoration.photo_metadata import Metadata, OpenedPhoto
from restoration.photo_pillow import Plain
from restoration.photo_png import PngTraits, open_png, rewrite_png, rewrite_png_with_8_bits, write_png
from restoration.photo_tiff import TiffTraits, open_tiff, rewrite_tiff, write_tiff
from restoration.photo_webp import MAX_SIDE_PX as WEBP_MAX_SIDE_PX
from restoration.photo_webp import WebpTraits, open_webp, write_webp
from restoration.windows import boxes_of

__all__ = [
    "MEDIA_TYPES",
    "Depth",
    "History",
    "Photo",
    "PhotoFormat",
    "PhotoLimits",
    "check_writable",
    "count_pixels",
    "decode_photo",
    "encode_photo",
    "measure_photo",
]

Traits: TypeAlias = JpegTraits | PngTraits | WebpTraits | TiffTraits | Jpeg2000Traits
Depth: TypeAlias = Literal["same", "8"]
CheckSize: TypeAlias = Callable[[int, int], None]

MEDIA_TYPES: Mapping[PhotoFormat, str] = MappingProxyType(
    {
        "jpeg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
        "tiff": "image/tiff",
        "jp2": "image/jp2",
        "j2k": "image/j2c",
    }
)

_LONGEST_SIDE_PX: Mapping[PhotoFormat, int] = MappingProxyType({"jpeg": JPEG_MAX_SIDE_PX, "webp": WEBP_MAX_SIDE_PX})
"""Of what a format holds, where that is less than any limit here."""

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")  # by number of channels, less one


@dataclass(frozen=True)
class PhotoLimits:
    """What is decoded at most; checked on the header, before samples are. max_pixels: of all pages together."""

    max_pixels: int = 120_000_000
    max_side_px: int = 40_000
    max_pages: int = 100

    def check_size(self) -> CheckSize:
        """A check for one file: called with the height and width of page after page, it raises PhotoTooLarge."""
        num_pixels = 0

        def check(height_px: int, width_px: int) -> None:
            nonlocal num_pixels
            num_pixels += height_px * width_px
            if num_pixels > self.max_pixels:
                pages_px = num_pixels if num_pixels > height_px * width_px else None
                raise PhotoTooLarge(height_px, width_px, f"{self.max_pixels:,} pixels", pages_px=pages_px)
            if max(height_px, width_px) > self.max_side_px:
                raise PhotoTooLarge(height_px, width_px, f"{self.max_side_px:,} pixels a side")

        return check


@dataclass(frozen=True, eq=False)
class Photo:
    """encoded: as it came; samples: (H, W, C) uint8 or uint16, read-only, in the stored grid; colours: what they mean;
    metadata and traits: what writing it back alike takes; further_pages: of a TIFF of several."""

    encoded: bytes = field(repr=False)
    format: PhotoFormat
    samples: Samples = field(repr=False)
    colours: ColourModel
    metadata: Metadata = field(repr=False)
    traits: Traits = field(repr=False)
    further_pages: tuple["Photo", ...] = ()

    @property
    def height_px(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.samples.shape[1])

    @property
    def pages(self) -> tuple["Photo", ...]:
        """This one and the further ones."""
        return (self, *self.further_pages)

    def colour(self) -> Bytes:
        """(H, W, 3) uint8, what a generator sees: grey on all three channels, alpha left out. Read-only; a view of the
        samples where they are 8-bit grey or RGB."""
        return self.colours.see(self.samples)

    def deep_colour(self) -> Samples:
        """(H, W, 3), what a generator sees where it fills: uint16 for grey and RGB of 16 bits, else as `colour`."""
        return self.colours.see_deep(self.samples)

    def with_colour(self, colour: Samples, mask: NDArray[np.bool_], opacities: Bytes | None = None) -> Samples:
        """(H, W, C) of the photo's kind: `colour`, (H, W, 3) as `colour` or `deep_colour` has it, where `mask`, (H, W)
        bool, is set, mixed in by `opacities`, (H, W) uint8, if given; and this photo's samples elsewhere. Alpha stays,
        and so does a sample that is seen in that very colour already, to 8 bits."""
        samples = self.samples.copy()
        for box in boxes_of(mask):
            here = mask[box]
            before = self.samples[box][here]  # (N, C)
            seen, painted = self.colours.see(before[None])[0], colour[box][here]
            shares = np.full(len(before), 255, np.uint8) if opacities is None else opacities[box][here]
            after = self.colours.paint(painted, before, shares)
            samples[box][here] = np.where((to_8_bit(painted) == seen).all(axis=1, keepdims=True), before, after)
        return samples

    def with_corrections(self, samples: Samples, corrections: Iterable[tuple[int, Floats]]) -> Samples:
        """`samples`, (H, W, C) of the photo's kind, with corrections to their colours added in their own depth.

        corrections: (first row, band), band (rows, W, 3) float32, 1 being the full scale; alpha stays.
        """
        corrected = samples.copy()
        for top, band in corrections:
            rows = slice(top, top + len(band))
            corrected[rows] = self.colours.add(samples[rows], band)
        return corrected


def decode_photo(encoded: bytes, limits: PhotoLimits | None = None) -> Photo:
    """Raises UnsupportedFormat (not JPEG, PNG, WebP, TIFF or JPEG 2000), UnsupportedPhoto (samples that are no whole
    numbers, an animation, too many pages), PhotoTooLarge and PhotoUndecodable (damaged, truncated, or a lie). Of a JPEG
    with several pictures (MPO) the first is the photo. Damage inside a picture that still decodes can't be noticed, but
    for a PNG's."""
    format_ = recognise_format(encoded)
    with _as_photo_errors(format_):
        first, *further = [
            Photo(encoded, format_, _read_only(page.read_samples()), page.colours, page.metadata, page.traits)
            for page in _open_pages(encoded, format_, limits or PhotoLimits())
        ]
    return replace(first, further_pages=tuple(further))


def measure_photo(encoded: bytes, limits: PhotoLimits | None = None) -> tuple[int, int]:
    """Height and width in pixels of the first page, as the header has them; nothing is decoded. Raises as
    `decode_photo` does for what a header can tell."""
    format_ = recognise_format(encoded)
    with _as_photo_errors(format_):
        first = _open_pages(encoded, format_, limits or PhotoLimits())[0]
    return first.height_px, first.width_px


def count_pixels(encoded: bytes, limits: PhotoLimits | None = None) -> int:
    """Of all pages together. Raises as `measure_photo` does."""
    format_ = recognise_format(encoded)
    with _as_photo_errors(format_):
        return sum(page.height_px * page.width_px for page in _open_pages(encoded, format_, limits or PhotoLimits()))


def check_writable(
    photo: Photo,
    *,
    format: PhotoFormat | None = None,
    quality: int | None = None,
    depth: Depth = "same",
    size_px: tuple[int, ...] | None = None,
) -> None:
    """Whether `encode_photo` can write what becomes of the photo: to be asked before restoring it, which takes long.

    format, quality, depth: as there; size_px: height and width, if not the photo's.
    Raises InvalidOption: a quality out of range or for what is lossless; a format that can't hold the photo."""
    target = format or photo.format
    _check_quality(quality, target)
    size_px = size_px or (photo.height_px, photo.width_px)
    if _is_converted(photo, target, quality, depth) or size_px != (photo.height_px, photo.width_px):
        _check_target(photo, target, depth, max(size_px))


def encode_photo(
    photo: Photo,
    samples: Samples,
    *,
    further_pages: Sequence[Samples] = (),
    format: PhotoFormat | None = None,
    quality: int | None = None,
    depth: Depth = "same",
    history: History | None = None,
    is_denoised: bool = False,
) -> bytes:
    """`samples`, (H, W, C) of the photo's kind, as a file like the one that the photo came in; that very file if they
    are the photo's own and nothing else is asked for. H and W may differ from the photo's, but for its pages.

    further_pages: the samples of the photo's further pages. format: another format instead. To JPEG of quality 95,
    4:4:4; to WebP lossless if the photo came lossless, else of quality 95; to TIFF by deflate; to JPEG 2000 reversibly.
    quality: 1 to 100, for JPEG, and for WebP, which it makes lossy. depth: 8 writes 16-bit samples as 8-bit ones.
    history: an entry for the file's XMP, written if any sample has changed. is_denoised: a JPEG is then encoded anew,
    of quality 95 unless it was finer: its own tables would round most of the artifacts back in that were taken out.
    Raises InvalidOption as `check_writable` does."""
    target = format or photo.format
    all_samples = (samples, *further_pages)
    _expect_alike(photo, all_samples)
    check_writable(photo, format=format, quality=quality, depth=depth, size_px=samples.shape[:2])
    is_converted = _is_converted(photo, target, quality, depth)
    is_changed = not all(are_equal(after, page.samples) for after, page in zip(all_samples, photo.pages, strict=True))
    if not is_converted and not is_changed:
        return photo.encoded
    if not is_changed:
        history = None
    elif is_denoised and target == "jpeg" and quality is None and isinstance(photo.traits, JpegTraits):
        quality = quality_without_artifacts(photo.traits)
        is_converted = is_converted or quality is not None
    is_rewritable = samples.shape == photo.samples.shape or isinstance(photo.traits, PngTraits)
    if not is_converted and is_rewritable:
        return _rewrite(photo, all_samples, history)
    return _write(photo, all_samples, target, quality, depth, history)


def _open_pages(encoded: bytes, format_: PhotoFormat, limits: PhotoLimits) -> Sequence[OpenedPhoto]:
    check_size = limits.check_size()
    match format_:
        case "jpeg":
            return [open_jpeg(encoded, check_size)]
        case "png":
            return [open_png(encoded, check_size)]
        case "webp":
            return [open_webp(encoded, check_size)]
        case "tiff":
            return open_tiff(encoded, check_size, limits.max_pages)
        case "jp2" | "j2k":
            return [open_jpeg2000(encoded, check_size)]


@contextmanager
def _as_photo_errors(format_: PhotoFormat) -> Iterator[None]:
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        # The readers raise a dozen kinds on damaged files: OSError, SyntaxError, ValueError, struct.error,
        # EOFError, KeyError, TypeError, IndexError, OverflowError, zlib.error, UnicodeError, RuntimeError ...
        raise PhotoUndecodable(
            f"the {format_.upper()} can't be decoded ({error}): it is damaged, truncated, or of a rare kind; "
            "send it again, or save it anew"
        ) from error


def _read_only(samples: Samples) -> Samples:
    samples.flags.writeable = False
    return samples


def _rewrite(photo: Photo, all_samples: Sequence[Samples], history: History | None) -> bytes:
    """In the photo's own format and kind, keeping of its file whatever can be kept."""
    samples = all_samples[0]
    match photo.traits:
        case JpegTraits() as traits:
            return rewrite_jpeg(photo.encoded, traits, to_8_bit(photo.samples), to_8_bit(samples), history)
        case PngTraits() as traits:
            return rewrite_png(samples, traits, history)
        case WebpTraits():
            return write_webp(_plain(photo, samples), _metadata(photo, history), is_lossless=True)
        case Jpeg2000Traits() as traits:
            return rewrite_jpeg2000(samples, traits, history)
        case TiffTraits():
            pages = [(page.traits, page.samples) for page in photo.pages if isinstance(page.traits, TiffTraits)]
            return rewrite_tiff(photo.encoded, pages, all_samples, history)


def _write(
    photo: Photo,
    all_samples: Sequence[Samples],
    target: PhotoFormat,
    quality: int | None,
    depth: Depth,
    history: History | None,
) -> bytes:
    """Anew, from samples and metadata alone; a JPEG as JPEG keeps all but its tables, a PNG as PNG all its chunks."""
    plains = [_plain(page, samples, depth) for page, samples in zip(photo.pages, all_samples, strict=True)]
    plain, metadata = plains[0], _metadata(photo, history)
    match target:
        case "jpeg":
            if isinstance(photo.traits, JpegTraits):
                return reencode_jpeg(plain, photo.traits, quality, history)
            return write_jpeg(plain, photo.metadata, quality, history)
        case "png":
            if isinstance(photo.traits, PngTraits):
                return rewrite_png_with_8_bits(to_8_bit(plain.samples), photo.traits, history)
            return write_png(plain, metadata)
        case "webp":
            return write_webp(plain, metadata, is_lossless=photo.traits.is_lossless, quality=quality)
        case "tiff":
            further = [page.metadata for page in photo.further_pages]
            return write_tiff(list(zip(plains, (metadata, *further), strict=True)))
        case "jp2" | "j2k":
            return write_jpeg2000(plain, metadata, is_bare=target == "j2k")


def _plain(photo: Photo, samples: Samples, depth: Depth = "same") -> Plain:
    plain = photo.colours.spell_out(samples)
    if depth == "8":
        plain = to_8_bit(plain)
    return Plain(plain, "CMYK" if isinstance(photo.colours, Cmyk) else _PLAIN_MODES[plain.shape[2] - 1])


def _metadata(photo: Photo, history: History | None) -> Metadata:
    return replace(photo.metadata, xmp=add_history(photo.metadata.xmp, history)) if history else photo.metadata


def _expect_alike(photo: Photo, all_samples: Sequence[Samples]) -> None:
    if len(all_samples) != len(photo.pages):
        raise ValueError(f"samples of {len(all_samples)} pages, but the photo has {len(photo.pages)}")
    for page, samples in zip(photo.pages, all_samples, strict=True):
        own = page.samples
        if samples.ndim != 3 or samples.dtype != own.dtype or samples.shape[2] != own.shape[2]:
            raise ValueError(
                f"samples are {samples.shape} {samples.dtype}; (H, W, {own.shape[2]}) {own.dtype} expected"
            )


def _check_quality(quality: int | None, target: PhotoFormat) -> None:
    if quality is not None and target not in ("jpeg", "webp"):
        raise InvalidOption(f"quality={quality} was asked for, but {target} is written losslessly; leave quality out")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidOption(f"quality={quality} was asked for; it goes from 1 to 100")


def _is_converted(photo: Photo, target: PhotoFormat, quality: int | None, depth: Depth) -> bool:
    """Whether something else than the photo's own kind of file is asked for."""
    is_deeper = depth == "8" and any(page.samples.dtype != np.uint8 for page in photo.pages)
    return target != photo.format or quality is not None or is_deeper


def _check_target(photo: Photo, target: PhotoFormat, depth: Depth, side_px: int) -> None:
    """side_px: the longer one. Raises InvalidOption."""
    one_sample, mode = _plain(photo, photo.samples[:1, :1], depth)
    if photo.further_pages and target != "tiff":
        raise InvalidOption(
            f"the photo has {len(photo.pages)} pages, but {target} holds one; ask for tiff, or send them one by one"
        )
    if one_sample.dtype != np.uint8 and target in ("jpeg", "webp"):
        raise InvalidOption(
            f"the photo has 16 bits a channel, but {target} holds 8; add depth=8, or ask for png or tiff"
        )
    if target == "jpeg" and mode in ("LA", "RGBA"):
        raise InvalidOption("the photo has an alpha channel, which JPEG can't hold; ask for png, webp or tiff")
    if target not in ("jpeg", "tiff") and mode == "CMYK":
        raise InvalidOption(f"the photo is CMYK, which {target} can't hold; ask for tiff or jpeg")
    if target != "png" and isinstance(photo.traits, PngTraits) and photo.traits.only_here:
        raise InvalidOption(f"the photo has {photo.traits.only_here}, which {target} can't hold; ask for png")
    if (max_side_px := _LONGEST_SIDE_PX.get(target)) is not None and side_px > max_side_px:
        raise InvalidOption(
            f"the picture would have {side_px:,} pixels a side, but {target} holds {max_side_px:,}; ask for png or tiff"
        )
