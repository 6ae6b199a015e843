"""How sure the detector must be: chosen on held-out clean photographs, so that they stay clean.

A detector learns from pictures most of which are damaged; most samples of a scan are not. How far its logits have to be
shifted for the one to become the other (Saerens et al. 2002) is measured, not assumed.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from restoration.generator import DetectFill
from restoration.masks import grade_damage
from restoration.restorer import RestoreOptions, restore_photo
from restoration.tensors import to_model_range, to_samples
from training.cases import photo_of
from training.damage import age_photos
from training.evaluation import place

SHIFTS = tuple(step / 4 for step in range(65))
"""0 to 16, in logits: those that are tried."""
UNCHANGED_SHARE = 0.965
"""Of clean photographs at the default sensitivity, most of them as old prints: more than is hoped for of others."""
REQUIRED_EVIDENCE = 5.5
"""Of a calibrated detector: a single sample must be as certain as a map of eight bits can tell."""
MIN_PHOTOS = 20
"""With fewer, one more or less would decide."""


@dataclass(frozen=True)
class Calibration:
    """shift: subtracted from the detector's logits; unchanged_share: of clean prints, what then came back unchanged."""

    shift: float
    unchanged_share: float


def calibrate(
    generator: DetectFill, photos: Sequence[np.ndarray], device: torch.device, *, unchanged_share: float
) -> Calibration:
    """The smallest shift with which that share of the photos comes back unchanged, or the largest that is tried.

    photos: (H, W, 3) uint8, clean and not trained on, of the size of the evaluation's; see `_as_prints` for how each is
    shown. What is unchanged stays so at any larger shift: the shift is found by bisection, and each print is looked at
    only while that is open.
    """
    undecided = list(_as_prints(photos))
    num_prints, num_changed = len(undecided), 0  # at the shift `high`
    low, high = -1, len(SHIFTS) - 1
    while high - low > 1:
        middle = (low + high) // 2
        is_changed = _are_changed(with_shift(generator, SHIFTS[middle]), undecided, device)
        if 1.0 - (num_changed + sum(is_changed)) / num_prints >= unchanged_share:
            high, num_changed = middle, num_changed + sum(is_changed)
            undecided = [each for each, changed in zip(undecided, is_changed, strict=True) if not changed]
        else:
            low = middle
            undecided = [each for each, changed in zip(undecided, is_changed, strict=True) if changed]
    if high == len(SHIFTS) - 1:
        num_changed = sum(_are_changed(with_shift(generator, SHIFTS[high]), undecided, device))
    return Calibration(SHIFTS[high], 1.0 - num_changed / num_prints)


def with_shift(generator: DetectFill, shift: float) -> DetectFill:
    """A copy that is surer, or less sure, of what is damage."""
    copy = deepcopy(generator)
    copy.config = replace(generator.config, detector_shift=shift, required_evidence=REQUIRED_EVIDENCE)
    return copy


def _as_prints(photos: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Each as it is, as an old print, and as another one that was scanned at twice the resolution."""
    for index, photo in enumerate(photos):
        yield photo
        yield _aged(photo, 2 * index)
        height_px, width_px = photo.shape[:2]
        enlarged = Image.fromarray(photo).resize((2 * width_px, 2 * height_px), Image.Resampling.LANCZOS)
        yield _aged(np.asarray(enlarged), 2 * index + 1)


def _aged(photo: np.ndarray, seed: int) -> np.ndarray:
    return to_samples(age_photos(to_model_range(photo)[None], torch.Generator().manual_seed(seed))[0])


def _are_changed(generator: DetectFill, prints: Sequence[np.ndarray], device: torch.device) -> list[bool]:
    on_device = place(generator, device)
    are_changed = []
    for each in prints:
        # Protected all over, so that nothing is filled for this
        options = RestoreOptions(protect=np.ones(each.shape[:2], bool))
        damage_map = restore_photo(photo_of(each), on_device, options).damage_map
        are_changed.append(bool(grade_damage(damage_map, generator.required_evidence).any()))
    return are_changed
