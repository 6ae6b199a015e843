"""Bytes to `Photo` and back.

A photo is kept as it is stored: its orientation tag is carried, not applied; its colour profile is carried, not
converted. What each format keeps, and what it can't, stands at the top of `photo_jpeg`, `photo_png`, `photo_webp` and
`photo_tiff`. On the way to another format a photo takes its ICC profile, EXIF, XMP and resolution along, each where
the new format has room for it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from restoration.errors import InvalidOption, PhotoError, PhotoTooLarge, PhotoUndecodable, UnsupportedPhoto
from restoration.photo_jpeg import MAX_SIDE_PX as JPEG_MAX_SIDE_PX
from restoration.photo_jpeg import JpegTraits, open_jpeg, write_jpeg
from restoration.photo_kinds import PhotoFormat, recognise_format
from restoration.photo_metadata import Metadata, OpenedPhoto, read_metadata
from restoration.photo_png import PngTraits, open_png, write_png
from restoration.photo_tiff import TiffTraits, open_tiff, write_tiff
from restoration.photo_webp import MAX_SIDE_PX as WEBP_MAX_SIDE_PX
from restoration.photo_webp import WebpTraits, open_webp, write_webp

__all__ = ["MEDIA_TYPES", "Photo", "PhotoFormat", "PhotoLimits", "decode_photo", "encode_photo", "measure_photo"]

Samples: TypeAlias = NDArray[np.uint8]
Traits: TypeAlias = JpegTraits | PngTraits | WebpTraits | TiffTraits

MEDIA_TYPES: Mapping[PhotoFormat, str] = MappingProxyType(
    {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "tiff": "image/tiff"}
)

_MODES = ("L", "LA", "RGB", "RGBA")  # by number of channels, less one
_OTHER_MODES = {"1": "1-bit black and white", "P": "a palette", "PA": "a palette", "I;16": "16-bit grey"}
_BAND_PX = 256  # rows that are copied or compared at a time, so that no second copy of a photo is made
# ITU-R BT.601 in 16-bit fixed point, as Pillow has it; the weights sum to 65536, so grey keeps its value.
_LUMA_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)


@dataclass(frozen=True)
class PhotoLimits:
    """What is decoded at most; checked on the header, before samples are."""

    max_pixels: int = 120_000_000
    max_side_px: int = 40_000

    def check(self, height_px: int, width_px: int) -> None:
        """Raises PhotoTooLarge."""
        if height_px * width_px > self.max_pixels:
            raise PhotoTooLarge(height_px, width_px, f"{self.max_pixels:,} pixels")
        if max(height_px, width_px) > self.max_side_px:
            raise PhotoTooLarge(height_px, width_px, f"{self.max_side_px:,} pixels a side")


@dataclass(frozen=True, eq=False)
class Photo:
    """encoded: as it came; samples: (H, W, C) uint8, read-only, in the stored grid, C = 1 grey, 2 grey and alpha,
    3 RGB, 4 RGBA; metadata and traits: what writing it back alike takes."""

    encoded: bytes = field(repr=False)
    format: PhotoFormat
    samples: Samples = field(repr=False)
    metadata: Metadata = field(repr=False)
    traits: Traits = field(repr=False)

    @property
    def height_px(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.samples.shape[1])

    def colour(self) -> Samples:
        """(H, W, 3) uint8, what a generator sees: grey on all three channels, alpha left out. A read-only view."""
        if self.samples.shape[2] >= 3:
            return self.samples[:, :, :3]
        return np.broadcast_to(self.samples[:, :, :1], (self.height_px, self.width_px, 3))

    def with_colour(self, colour: Samples, mask: NDArray[np.bool_]) -> Samples:
        """(H, W, C) uint8: `colour`, (H, W, 3) uint8, where `mask`, (H, W) bool, is set, and this photo's samples
        elsewhere. A grey photo takes the luma; alpha stays."""
        samples = self.samples.copy()
        for rows in _bands(self.height_px):
            band, painted = mask[rows], colour[rows][mask[rows]]  # painted: (N, 3)
            if samples.shape[2] >= 3:
                samples[rows, :, :3][band] = painted
            else:
                samples[rows, :, 0][band] = ((painted @ _LUMA_WEIGHTS + 32768) >> 16).astype(np.uint8)
        return samples


def decode_photo(encoded: bytes, limits: PhotoLimits | None = None) -> Photo:
    """Raises UnsupportedFormat (not JPEG, PNG, WebP or TIFF), UnsupportedPhoto (not 8-bit grey or RGB, or more than one
    picture), PhotoTooLarge and PhotoUndecodable (damaged, truncated, or a lie). Of a JPEG with several pictures (MPO)
    the first is the photo. Damage inside a JPEG's, WebP's or TIFF's picture that still decodes can't be noticed."""
    format_ = recognise_format(encoded)
    limits = limits or PhotoLimits()
    with _as_photo_errors(format_):
        opened = _OPENERS[format_](encoded, limits.check)
        _check_kind(opened.file)
        samples = _read_samples(opened.file)
        metadata = read_metadata(opened.file.info, opened.exif)
    return Photo(encoded, format_, samples, metadata, opened.traits)


def measure_photo(encoded: bytes, limits: PhotoLimits | None = None) -> tuple[int, int]:
    """Height and width in pixels, as the header has them; nothing is decoded. Raises as `decode_photo` does for what a
    header can tell: not for a kind that is not supported, nor for damage behind it."""
    format_ = recognise_format(encoded)
    limits = limits or PhotoLimits()
    with _as_photo_errors(format_):
        width_px, height_px = _OPENERS[format_](encoded, limits.check).file.size
    return height_px, width_px


def encode_photo(
    photo: Photo, samples: Samples, *, format: PhotoFormat | None = None, quality: int | None = None
) -> bytes:
    """`samples`, (H, W, C) uint8 with the photo's C, as a file like the one that the photo came in; that very file if
    they are the photo's own and nothing else is asked for. H and W may differ from the photo's.

    format: another format instead. To JPEG of quality 95, 4:4:4; to WebP lossless if the photo came lossless, else of
    quality 95; to TIFF by deflate. quality: 1 to 100, for JPEG, and for WebP, which it makes lossy.
    Raises InvalidOption: a quality out of range or for PNG or TIFF; alpha to JPEG; too many pixels a side."""
    target = format or photo.format
    _check_options(photo, samples, target, quality)
    if target == photo.format and quality is None and _are_equal(samples, photo.samples):
        return photo.encoded
    picture = _to_picture(samples)
    traits = photo.traits if target == photo.format else None
    match target:
        case "jpeg":
            return write_jpeg(picture, photo.metadata, traits if isinstance(traits, JpegTraits) else None, quality)
        case "png":
            return write_png(picture, photo.metadata, traits if isinstance(traits, PngTraits) else None)
        case "webp":
            return write_webp(picture, photo.metadata, is_lossless=_came_lossless(photo), quality=quality)
        case "tiff":
            return write_tiff(picture, photo.metadata, traits if isinstance(traits, TiffTraits) else None)


_OPENERS: Mapping[PhotoFormat, Callable[[bytes, Callable[[int, int], None]], OpenedPhoto]] = MappingProxyType(
    {"jpeg": open_jpeg, "png": open_png, "webp": open_webp, "tiff": open_tiff}
)


@contextmanager
def _as_photo_errors(format_: PhotoFormat) -> Iterator[None]:
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        # Pillow's readers raise a dozen kinds on damaged files: OSError, SyntaxError, ValueError, struct.error,
        # EOFError, KeyError, TypeError, IndexError, OverflowError, zlib.error, UnicodeError, RuntimeError ...
        raise PhotoUndecodable(
            f"the {format_.upper()} can't be decoded ({error}): it is damaged, truncated, or of a rare kind; "
            "send it again, or save it anew"
        ) from error


def _check_kind(file: ImageFile.ImageFile) -> None:
    if getattr(file, "is_animated", False):
        raise UnsupportedPhoto(f"the {file.format} has more than one page or frame; send them one by one")
    if file.mode not in _MODES:
        raise UnsupportedPhoto(
            f"the {file.format} holds {_OTHER_MODES.get(file.mode, file.mode)} samples, but only 8-bit grey and RGB "
            "are taken, with or without alpha; convert it"
        )


def _read_samples(file: ImageFile.ImageFile) -> Samples:
    file.load()
    width_px, height_px = file.size
    samples = np.empty((height_px, width_px, len(file.getbands())), np.uint8)
    for rows in _bands(height_px):
        band = np.asarray(file.crop((0, rows.start, width_px, rows.stop)))
        samples[rows] = band.reshape(samples[rows].shape)
    samples.flags.writeable = False
    return samples


def _bands(height_px: int) -> Iterator[slice]:
    return (slice(top, min(top + _BAND_PX, height_px)) for top in range(0, height_px, _BAND_PX))


def _are_equal(samples: Samples, others: Samples) -> bool:
    if samples is others:
        return True
    return samples.shape == others.shape and all(
        np.array_equal(samples[rows], others[rows]) for rows in _bands(samples.shape[0])
    )


def _to_picture(samples: Samples) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples))


def _came_lossless(photo: Photo) -> bool:
    match photo.traits:
        case JpegTraits():
            return False
        case PngTraits():
            return True
        case WebpTraits(is_lossless=is_lossless) | TiffTraits(is_lossless=is_lossless):
            return is_lossless


def _check_options(photo: Photo, samples: Samples, target: PhotoFormat, quality: int | None) -> None:
    if samples.ndim != 3 or samples.dtype != np.uint8 or samples.shape[2] != photo.samples.shape[2]:
        raise ValueError(
            f"samples are {samples.shape} {samples.dtype}; (H, W, {photo.samples.shape[2]}) uint8 expected"
        )
    if quality is not None and target in ("png", "tiff"):
        raise InvalidOption(f"quality={quality} was asked for, but {target} is written losslessly; leave quality out")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidOption(f"quality={quality} was asked for; it goes from 1 to 100")
    has_alpha = samples.shape[2] in (2, 4)
    if target == "jpeg" and has_alpha:
        raise InvalidOption("the photo has an alpha channel, which JPEG can't hold; ask for png, webp or tiff")
    if target != "png" and isinstance(photo.traits, PngTraits) and photo.traits.has_transparent_colour:
        raise InvalidOption(f"the photo has a transparent colour, which {target} can't hold; ask for png")
    max_side_px = {"jpeg": JPEG_MAX_SIDE_PX, "webp": WEBP_MAX_SIDE_PX}.get(target)
    if max_side_px is not None and max(samples.shape[:2]) > max_side_px:
        raise InvalidOption(
            f"the photo has {max(samples.shape[:2]):,} pixels a side, but {target} holds {max_side_px:,}; "
            "ask for png or tiff"
        )
