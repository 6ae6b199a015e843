"""What a photo's samples mean: from them to the 8-bit colours that a generator sees, and back.

Grey and RGB are seen and painted in the photo's own colour space, whatever its profile says: paint is made of what is
around it, and no conversion can clip or shift it. CMYK is seen through its profile, and paint goes back the same way.
A palette, and 1, 2 or 4 bits of grey, take the nearest colour that they have.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from scipy.spatial import KDTree

from restoration.errors import UnsupportedPhoto

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
AnySamples = TypeVar("AnySamples", bound=Samples)

BAND_PX = 256  # rows that are converted, copied or compared at a time, so that no second copy of a photo is made
# ITU-R BT.601 in 16-bit fixed point, as Pillow has it; the weights sum to 65536, so grey keeps its value.
_LUMA_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_OPAQUE = 255


class ColourModel(Protocol):
    """samples: (..., C) of the photo's own kind; colours: (..., 3) uint8, or uint16 as `see_deep` has them."""

    @property
    def name(self) -> str: ...

    @property
    def has_alpha(self) -> bool: ...

    def see(self, samples: Samples) -> Bytes:
        """(H, W, C) to (H, W, 3) uint8, what a generator sees; alpha is left out. Perhaps a view, and then
        read-only: not to be written to."""

    def see_deep(self, samples: Samples) -> Samples:
        """The same with all the bits that paint can be given in: (H, W, 3) uint16 for grey and RGB of 16 bits."""

    def paint(self, colours: Samples, samples: Samples, opacities: Bytes) -> Samples:
        """`samples`, (N, C), with `colours`, (N, 3), mixed in by `opacities`, (N,): 255 replaces, and alpha stays."""

    def add(self, samples: Samples, corrections: Floats) -> Samples:
        """`samples`, (H, W, C), with corrections, (H, W, 3) float32, 1 being the full scale, added to their colours in
        their own depth; alpha stays."""

    def spell_out(self, samples: Samples) -> Samples:
        """(H, W, C) to the plain form that every format has: grey or RGB, black is zero, alpha last; or CMYK."""


@dataclass(frozen=True)
class Direct:
    """Grey or RGB of 8 or 16 bits, with or without straight alpha. is_inverted: grey of which white is zero."""

    num_colours: int
    has_alpha: bool
    is_inverted: bool = False

    @property
    def name(self) -> str:
        return {1: "grey", 3: "RGB"}[self.num_colours] + (" + alpha" if self.has_alpha else "")

    def see(self, samples: Samples) -> Bytes:
        colours = samples[:, :, : self.num_colours]
        if samples.dtype != np.uint8 or self.is_inverted:
            colours = in_bands(lambda band: to_8_bit(~band if self.is_inverted else band), colours, self.num_colours)
        return np.broadcast_to(colours, (*samples.shape[:2], 3))

    def see_deep(self, samples: Samples) -> Samples:
        if samples.dtype == np.uint8:
            return self.see(samples)
        colours = samples.view(np.uint16)[:, :, : self.num_colours]
        return np.broadcast_to(~colours if self.is_inverted else colours, (*samples.shape[:2], 3))

    def paint(self, colours: Samples, samples: Samples, opacities: Bytes) -> Samples:
        if self.num_colours == 1:
            luma = ((colours @ _LUMA_WEIGHTS + 32768) >> 16)[:, None]
            luma = ~luma if self.is_inverted else luma
            colours = luma.astype(np.uint16) if colours.dtype == np.uint16 else luma.astype(np.uint8)
        painted = samples.copy()
        fill, before = to_depth(colours, samples.dtype), samples[:, : self.num_colours]
        painted[:, : self.num_colours] = _mix(fill, before, opacities)
        return painted

    def add(self, samples: Samples, corrections: Floats) -> Samples:
        if self.num_colours == 1:
            luma = luma_of(corrections)[:, :, None]
            corrections = -luma if self.is_inverted else luma
        corrected = samples.copy()
        corrected[:, :, : self.num_colours] = _added(samples[:, :, : self.num_colours], corrections)
        return corrected

    def spell_out(self, samples: Samples) -> Samples:
        if not self.is_inverted:
            return samples
        plain = samples.copy()
        np.invert(plain[:, :, 0], out=plain[:, :, 0])
        return plain


@dataclass(frozen=True)
class Indexed:
    """Samples are numbers of colours: a palette, black and white, or 2 or 4 bits of grey.

    colours: RGBA, one of 4 bytes each; is_grey: they are levels of grey, opaque."""

    colours: bytes = field(repr=False)
    name: str
    is_grey: bool = False

    @property
    def has_alpha(self) -> bool:
        return bool((self._table[:, 3] != _OPAQUE).any())

    @property
    def _table(self) -> Bytes:
        return np.frombuffer(self.colours, np.uint8).reshape(-1, 4)

    def see(self, samples: Samples) -> Bytes:
        if self.is_grey:
            return np.broadcast_to(self._table[:, 0][samples], (*samples.shape[:2], 3))
        return self._table[:, :3][samples[:, :, 0]]

    def see_deep(self, samples: Samples) -> Samples:
        return self.see(samples)

    def paint(self, colours: Samples, samples: Samples, opacities: Bytes) -> Samples:
        before = self._table[samples[:, 0]]
        mixed = _mix(colours, before[:, :3], opacities)
        painted = samples.copy()
        for alpha in np.unique(before[:, 3]):
            choices = np.flatnonzero(self._table[:, 3] == alpha)
            where = before[:, 3] == alpha
            _, nearest = KDTree(self._table[choices, :3]).query(mixed[where])
            painted[where, 0] = choices[nearest]
        return painted

    def add(self, samples: Samples, corrections: Floats) -> Samples:
        before = self._table[samples[:, :, 0], :3]
        wanted = _added(before, corrections)
        is_other = (wanted != before).any(axis=2)  # of two entries alike, a sample keeps its own
        corrected = samples.copy()
        corrected[is_other] = self.paint(wanted[is_other], samples[is_other], np.full(is_other.sum(), 255, np.uint8))
        return corrected

    def spell_out(self, samples: Samples) -> Samples:
        num_channels = 1 if self.is_grey else 4 if self.has_alpha else 3
        return self._table[:, :num_channels][samples[:, :, 0]]


@dataclass(frozen=True)
class Cmyk:
    """Inks, the full one is the highest value. profile: ICC; without one, as Pillow converts."""

    profile: bytes | None = field(default=None, repr=False)
    name: str = "CMYK"
    has_alpha: bool = False

    def __post_init__(self) -> None:
        if self.profile is not None and self.profile[16:20] != b"CMYK":
            object.__setattr__(self, "profile", None)

    def see(self, samples: Samples) -> Bytes:
        return in_bands(lambda band: self._to_rgb(to_8_bit(band)), samples, 3)

    def see_deep(self, samples: Samples) -> Samples:
        return self.see(samples)  # profiles are gone through in 8 bits

    def paint(self, colours: Samples, samples: Samples, opacities: Bytes) -> Samples:
        before = self._to_rgb(to_8_bit(samples[None]))[0]
        inks = np.asarray(self._apply(_mix(colours, before, opacities)[None], "RGB", "CMYK"))[0]
        return to_depth(inks, samples.dtype)

    def add(self, samples: Samples, corrections: Floats) -> Samples:
        """The inks change by as much as those change that the profile would choose: its choice need not be theirs."""
        before: Bytes = self._to_rgb(to_8_bit(samples))
        inks_before, inks_after = (
            np.asarray(self._apply(colours, "RGB", "CMYK")).astype(np.float32)
            for colours in (before, _added(before, corrections))
        )
        return _added(samples, (inks_after - inks_before) / np.float32(255.0))

    def spell_out(self, samples: Samples) -> Samples:
        return samples

    def _to_rgb(self, inks: Bytes) -> Bytes:
        return np.asarray(self._apply(inks, "CMYK", "RGB"))

    def _apply(self, samples: Bytes, mode: str, to_mode: str) -> Image.Image:
        picture = Image.frombuffer(
            mode, (samples.shape[1], samples.shape[0]), np.ascontiguousarray(samples), "raw", mode, 0, 1
        )
        if self.profile is None:
            return picture.convert(to_mode)
        converted = ImageCms.applyTransform(picture, _transforms_of(self.profile)[to_mode])
        assert converted is not None  # it is only when the picture is changed in place
        return converted


def usable_cmyk(profile: bytes | None) -> Cmyk:
    """Raises UnsupportedPhoto for a profile that can't be converted through both ways."""
    inks = Cmyk(profile)
    try:
        _ = inks.profile and _transforms_of(inks.profile)
    except ImageCms.PyCMSError as error:
        raise UnsupportedPhoto(
            f"the photo's CMYK profile can't be converted through both ways ({error}); embed another one"
        ) from error
    return inks


@lru_cache(maxsize=4)
def _transforms_of(profile: bytes) -> dict[str, ImageCms.ImageCmsTransform]:
    """By the mode that they lead to."""
    inks, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return {
        "RGB": ImageCms.buildTransform(inks, srgb, "CMYK", "RGB", intent, flags),
        "CMYK": ImageCms.buildTransform(srgb, inks, "RGB", "CMYK", intent, flags),
    }


def grey_levels(num_bits: int, *, is_inverted: bool = False) -> Indexed:
    """Grey of 1, 2 or 4 bits. is_inverted: white is zero."""
    levels = np.linspace(0, 255, 1 << num_bits).round().astype(np.uint8)[:: -1 if is_inverted else 1]
    table = np.stack([levels, levels, levels, np.full_like(levels, _OPAQUE)], axis=1)
    return Indexed(table.tobytes(), "1-bit" if num_bits == 1 else f"{num_bits}-bit grey", is_grey=True)


def to_8_bit(samples: Samples) -> Bytes:
    """uint8 as it is, uint16 rounded to nearest."""
    if samples.dtype == np.uint8:
        return samples.view(np.uint8)
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_depth(colours: Samples, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Samples:
    """uint8 or uint16 to `dtype`, never to a narrower one: the range goes with it; what is of `dtype` stays as it
    is."""
    return colours if colours.dtype == dtype else colours.astype(np.uint16) * np.uint16(257)


def in_bands(convert: Callable[[Samples], Bytes], samples: Samples, num_channels: int) -> Bytes:
    """`convert` for (H, W, C) samples, some rows at a time; returns (H, W, num_channels) uint8."""
    converted = np.empty((*samples.shape[:2], num_channels), np.uint8)
    for rows in bands_of(samples.shape[0]):
        converted[rows] = convert(samples[rows])
    return converted


def bands_of(height_px: int, band_px: int = BAND_PX) -> Iterator[slice]:
    return (slice(top, min(top + band_px, height_px)) for top in range(0, height_px, band_px))


def are_equal(samples: Samples, others: Samples) -> bool:
    if samples is others:
        return True
    return samples.shape == others.shape and all(
        np.array_equal(samples[rows], others[rows]) for rows in bands_of(samples.shape[0])
    )


def luma_of(colours: Samples | Floats) -> Floats:
    """(..., 3) to (...), in their own scale.

    Not a matrix product: for that a BLAS starts threads, which keep a core busy for 27 ms waiting for the next one.
    """
    red, green, blue = (colours[..., channel] * weight for channel, weight in enumerate(_LUMA))
    luma: Floats = red + green + blue
    return luma


def _added(samples: AnySamples, corrections: Floats) -> AnySamples:
    """Of one shape; corrections: 1 is the samples' full scale, at which they end."""
    full_scale = np.iinfo(samples.dtype).max
    sums = np.rint(samples + corrections * np.float32(full_scale))
    added: AnySamples = np.empty_like(samples)
    added[:] = np.clip(sums, 0, full_scale)
    return added


def _mix(colours: Samples, before: AnySamples, opacities: Bytes) -> AnySamples:
    """(N, C) each, of one depth; opacities: (N,)."""
    share = opacities[:, None].astype(np.uint32)
    mixed: AnySamples = np.empty_like(before)
    mixed[:] = (colours * share + before * (255 - share) + 127) // 255
    return mixed
