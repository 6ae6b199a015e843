"""Evaluation cases: held-out photos with held-out damage, one family at a time, the same for every method."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from restoration.photo import Photo, decode_photo
from restoration.tensors import to_model_range, to_samples
from restoration.windows import largest_within
from training.damage import INVISIBLE, VISIBLE, DamageConfig, add_damage, age_photos, damage_mask
from training.drawing import FAMILIES
from training.overlays import OverlayBank

CASE_FAMILIES = (*FAMILIES, "mixtures", "clean")
HEAVY = "heavy"
"""Five layers of what hides most; apart from the families, since nobody's scans are all like that."""


NEAR_PX = 3
"""Damage has no sharp end: so near it, what is repaired with it is no harm."""


@dataclass(frozen=True)
class Size:
    """A short side to which photos are resized, and what is measured there. Enlarged ones are softer than scans are."""

    short_side_px: int
    share: float
    """Cases of each of its families, relative to the cases that a family has at the photos' own size."""
    families: tuple[str, ...]
    is_scan: bool = False
    """Of the largest photos that there are, cut to a square, with damage drawn as finely as a scan shows it."""

    def num_cases(self, num_per_family: int) -> int:
        return int(self.share * num_per_family)


SIZES = (
    Size(256, 1 / 6, (*FAMILIES, "mixtures")),
    Size(1000, 1 / 12, (*FAMILIES, "mixtures")),
    Size(3000, 1 / 12, ("mixtures", "clean"), is_scan=True),
)
"""One case at 3,000 px is as much work as sixty at the photos' own size."""


@dataclass(frozen=True, eq=False)
class Case:
    """damaged, clean: (H, W, 3) uint8 of the same print; they differ only where the damage is."""

    family: str
    name: str
    damaged: np.ndarray
    clean: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """(H, W) int16: the largest change of a pixel's samples, in levels."""
        difference: np.ndarray = np.abs(self.damaged.astype(np.int16) - self.clean).max(axis=2)
        return difference

    @property
    def altered(self) -> np.ndarray:
        """(H, W) bool: every pixel that the damage changed by more than the eye could ever see."""
        return self.change > INVISIBLE * 255

    @property
    def is_away(self) -> np.ndarray:
        """(H, W) bool: every pixel that is more than `NEAR_PX` away from any altered one."""
        return ~largest_within(self.altered, NEAR_PX)

    @property
    def visible(self) -> np.ndarray:
        """(H, W) bool: the damage that a detector must find. What grain and texture hide is none."""
        mask, _ = damage_mask(to_model_range(self.damaged)[None], to_model_range(self.clean)[None])
        visible: np.ndarray = mask[0, 0].numpy() > 0
        return visible

    def photo(self) -> Photo:
        """The damaged print as a client would send it, without loss."""
        return photo_of(self.damaged)


def photo_of(samples: np.ndarray) -> Photo:
    """samples: (H, W, 3) uint8; the photo that a PNG of them decodes to."""
    return decode_photo(png_of(samples))


def png_of(samples: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(samples).save(png, "PNG")
    return png.getvalue()


def damage_config(family: str) -> DamageConfig:
    """One layer of one family; two or three of any for `mixtures`, five that hide much for `heavy`."""
    if family == "clean":
        return DamageConfig(num_layers_shares=(1.0,))
    if family == HEAVY:
        return DamageConfig(families=("strokes", "creases", "holes"), num_layers_shares=(*[0.0] * 5, 1.0))
    if family == "mixtures":
        return DamageConfig(num_layers_shares=(0.0, 0.0, 0.5, 0.5))
    return DamageConfig(families=(family,), num_layers_shares=(0.0, 1.0))


def make_cases(
    photos: Sequence[np.ndarray],
    names: Sequence[str],
    bank: OverlayBank,
    *,
    num_per_family: int,
    seed: int,
) -> Iterator[Case]:
    """Cases of every family. Case k of each that is damaged shows the same print, so that they can be compared.

    Clean ones are of every photo: one that is changed must not weigh more than it has to.
    """
    order = _drawing_order(len(photos), seed)
    for family in CASE_FAMILIES:
        is_clean = family == "clean"
        for index in range(max(num_per_family, len(photos)) if is_clean else num_per_family):
            chosen = order[index % len(photos)]
            yield make_case(photos[chosen], names[chosen], family, bank, seed=seed * 100_000 + index)


def make_heavy(
    photos: Sequence[np.ndarray], names: Sequence[str], bank: OverlayBank, *, num: int, seed: int
) -> Iterator[Case]:
    """Cases of heavy damage."""
    order = _drawing_order(len(photos), seed)
    for index in range(num):
        chosen = order[index % len(photos)]
        yield make_case(photos[chosen], names[chosen], HEAVY, bank, seed=seed * 100_000 + index)


def make_at_size(
    photos: Sequence[np.ndarray], names: Sequence[str], bank: OverlayBank, size: Size, *, num: int, seed: int
) -> Iterator[Case]:
    """Cases of each of the size's families. Case k of each shows the same print."""
    order = _drawing_order(len(photos), seed)
    for family in size.families:
        for index in range(num):
            chosen = order[index % len(photos)]
            photo = _resized(photos[chosen], size.short_side_px)
            photo = _square(photo) if size.is_scan else photo
            case = make_case(photo, names[chosen], family, bank, seed=seed * 100_000 + index)
            yield replace(case, family=f"{family} at {size.short_side_px} px")


def _drawing_order(num_photos: int, seed: int) -> list[int]:
    """No photo is shown twice before every other was shown: one that is hard must not decide."""
    order: list[int] = np.random.default_rng(seed).permutation(num_photos).tolist()
    return order


def _resized(photo: np.ndarray, short_side_px: int) -> np.ndarray:
    scale = short_side_px / min(photo.shape[:2])
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def _square(photo: np.ndarray) -> np.ndarray:
    """The middle of it: what it costs to measure a panorama must not depend on its length."""
    side_px = min(photo.shape[:2])
    top, left = ((extent - side_px) // 2 for extent in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + side_px, left : left + side_px])


def make_case(photo: np.ndarray, name: str, family: str, bank: OverlayBank, *, seed: int) -> Case:
    """photo: (H, W, 3) uint8. Damage is drawn anew until it shows: an overlay may miss the photo or match its tone."""
    print_ = age_photos(to_model_range(photo)[None], torch.Generator().manual_seed(seed))
    clean = to_samples(print_[0])
    rng = torch.Generator().manual_seed(seed + (*CASE_FAMILIES, HEAVY).index(family) + 1)
    base = to_model_range(clean)[None]
    for _ in range(20):
        damaged = to_samples(add_damage(base, bank, damage_config(family), rng)[0])
        case = Case(family, name, damaged, clean)
        if family == "clean" or (case.change >= VISIBLE * 255).mean() > 5e-4:
            break
    return case
