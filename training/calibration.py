"""How sure the detector must be: chosen on held-out clean photographs, so that they stay clean.

A detector learns from pictures most of which are damaged; most samples of a scan are not. How far its logits have to be
shifted for the one to become the other (Saerens et al. 2002) is measured, not assumed.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch

from restoration.generator import DetectFill
from restoration.masks import grade_damage
from restoration.restorer import RestoreOptions, restore_photo
from restoration.tensors import to_model_range, to_samples
from training.cases import photo_of
from training.damage import age_photos
from training.evaluation import place

SHIFTS = tuple(step / 4 for step in range(65))
"""0 to 16, in logits: those that are tried."""
UNCHANGED_SHARE = 0.95
"""Of clean photographs at the default sensitivity, half of them as old prints."""
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

    photos: (H, W, 3) uint8, clean and not trained on, of the size of the evaluation's. Each is shown as it is and as an
    old print. The share rises with the shift, so the shift is found by bisection.
    """
    prints = list(_as_prints(photos))
    low, high = 0, len(SHIFTS) - 1
    while low < high:
        middle = (low + high) // 2
        if _share_unchanged(with_shift(generator, SHIFTS[middle]), prints, device) >= unchanged_share:
            high = middle
        else:
            low = middle + 1
    return Calibration(SHIFTS[low], _share_unchanged(with_shift(generator, SHIFTS[low]), prints, device))


def with_shift(generator: DetectFill, shift: float) -> DetectFill:
    """A copy that is surer, or less sure, of what is damage."""
    copy = deepcopy(generator)
    copy.config = replace(generator.config, detector_shift=shift, required_evidence=REQUIRED_EVIDENCE)
    return copy


def _as_prints(photos: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for index, photo in enumerate(photos):
        yield photo
        rng = torch.Generator().manual_seed(index)
        yield to_samples(age_photos(to_model_range(photo)[None], rng)[0])


def _share_unchanged(generator: DetectFill, prints: Sequence[np.ndarray], device: torch.device) -> float:
    on_device = place(generator, device)
    num_unchanged = 0
    for each in prints:
        # Protected all over, so that nothing is filled for this
        options = RestoreOptions(protect=np.ones(each.shape[:2], bool))
        damage_map = restore_photo(photo_of(each), on_device, options).damage_map
        num_unchanged += not grade_damage(damage_map, generator.required_evidence).any()
    return num_unchanged / len(prints)
