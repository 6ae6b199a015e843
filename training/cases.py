"""Evaluation cases: held-out photos with held-out damage, one family at a time, the same for every method."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from restoration.photo import Photo, decode_photo
from restoration.tensors import to_model_range, to_samples
from training.damage import INVISIBLE, VISIBLE, DamageConfig, add_damage, age_photos, damage_mask
from training.overlays import FAMILIES, OverlayBank

CASE_FAMILIES = (*FAMILIES, "mixtures", "clean")


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
    """One layer of one family, two or three of any for `mixtures`, none for `clean`."""
    if family == "clean":
        return DamageConfig(num_layers_shares=(1.0,))
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
    """Cases of every family. Case k of each shows the same print, so that they can be compared."""
    for family in CASE_FAMILIES:
        for index in range(num_per_family):
            chosen = int(np.random.default_rng([seed, index]).integers(len(photos)))
            yield make_case(photos[chosen], names[chosen], family, bank, seed=seed * 100_000 + index)


def make_case(photo: np.ndarray, name: str, family: str, bank: OverlayBank, *, seed: int) -> Case:
    """photo: (H, W, 3) uint8. Damage is drawn anew until it shows: an overlay may miss the photo or match its tone."""
    print_ = age_photos(to_model_range(photo)[None], torch.Generator().manual_seed(seed))
    clean = to_samples(print_[0])
    rng = torch.Generator().manual_seed(seed + CASE_FAMILIES.index(family) + 1)
    base = to_model_range(clean)[None]
    for _ in range(20):
        damaged = to_samples(add_damage(base, bank, damage_config(family), rng)[0])
        case = Case(family, name, damaged, clean)
        if family == "clean" or (case.change >= VISIBLE * 255).mean() > 5e-4:
            break
    return case
