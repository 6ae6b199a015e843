"""What a photo carries beside its samples, in the form that it takes to another format."""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from restoration.photo_colours import ColourModel, Samples
from restoration.photo_tags import (
    EXIF_PREFIX,
    ORIENTATION,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Tag,
    Tags,
    read_tags,
    without_thumbnail,
)
from restoration.photo_thumbnails import without_xmp_thumbnail

_MAX_DPI = 65_535  # JPEG's field is 16 bits wide


@dataclass(frozen=True)
class Metadata:
    """icc_profile; exif: without the prefix that JPEG gives it; xmp; both without their thumbnails, which would be
    stale; dpi: horizontal, vertical; captions: a TIFF's IPTC and Photoshop's resources, for another TIFF."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    captions: Tags = field(default_factory=dict)

    @property
    def orientation(self) -> int:
        """How the stored picture is to be turned to be seen, 1 to 8 (EXIF 2.32, 4.6.4); 1, as it is, where no valid tag
        says."""
        tag = read_tags(self.exif, (ORIENTATION,)).get(ORIENTATION) if self.exif else None
        number = tag.numbers()[:1] if isinstance(tag, Tag) and tag.type == SHORT else ()
        return number[0] if number and 1 <= number[0] <= 8 else 1


class OpenedPhoto(NamedTuple):
    """One picture of a file: its header has been read and its samples have not. `traits` belong to its format."""

    height_px: int
    width_px: int
    colours: ColourModel
    read_samples: Callable[[], Samples]
    metadata: Metadata
    traits: Any


def read_metadata(info: Mapping[Any, Any], exif: bytes | None = None) -> Metadata:
    """From what Pillow's readers leave in `info`; whatever is not of the expected kind is left out."""
    exif = exif or _bytes_or_none(info.get("exif"))
    if exif:  # a PNG may hold the prefix that Pillow adds
        exif = without_thumbnail(exif.removeprefix(EXIF_PREFIX).removeprefix(EXIF_PREFIX))
    return Metadata(
        icc_profile=_bytes_or_none(info.get("icc_profile")),
        exif=exif,
        xmp=without_xmp_thumbnail(xmp) if (xmp := _bytes_or_none(info.get("xmp"))) else None,
        dpi=_read_dpi(info.get("dpi")) or (_read_dpi_from_exif(exif) if exif else None),
    )


def _bytes_or_none(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _read_dpi(value: Any) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if all(math.isfinite(number) and 1 <= number <= _MAX_DPI for number in (horizontal, vertical)):
        return horizontal, vertical
    return None


def _read_dpi_from_exif(exif: bytes) -> tuple[float, float] | None:
    tags = read_tags(exif, (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT))
    resolution = [tags.get(X_RESOLUTION), tags.get(Y_RESOLUTION)]
    unit = tags.get(RESOLUTION_UNIT)
    per_inch = 2.54 if isinstance(unit, Tag) and unit.data[:1] == b"\3" else 1.0  # 3: per centimetre
    fractions = [struct.unpack("<LL", tag.data) for tag in resolution if _is_fraction(tag)]
    return _read_dpi([per_inch * above / below for above, below in fractions if below])


def _is_fraction(tag: object) -> TypeGuard[Tag]:
    return isinstance(tag, Tag) and tag.type == RATIONAL and tag.num_values == 1
