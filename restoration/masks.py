"""From the soft damage map to opacities: how much of the repair each sample takes."""

import math

import numpy as np
from scipy import ndimage

from restoration.errors import InvalidOption

SEED_FADE = 2.0
"""Damage is repaired in full when its logit is so much above the one from which its repair begins."""
SUSPECT_GAP = 6.2
"""What is connected to damage is repaired with it down to a logit so much lower: the faint stretches of a scratch."""
SUSPECT_FADE = 2.2
"""As `SEED_FADE`, for what is connected."""
SENSITIVITY_LOGITS = 8.0
"""How far sensitivity from 0 to 1 moves all of these: a tenth of it is less than a logit."""
NUM_GRADES = 8

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def grade_damage(damage_map: np.ndarray, seed_certainty: float, sensitivity: float = 0.5) -> np.ndarray:
    """Hysteresis in grades: faint stretches of a certain scratch survive, faint islands do not.

    With one pair of thresholds, a speck on the brink would be there or not, and two scans of one photo would differ
    visibly. Here it fades in: a grade is reached by what is connected, at that grade's thresholds, to a seed of it.

    damage_map: (H, W) uint8, 255 is certain damage; seed_certainty in (0, 1): the map's value from which on damage is
    repaired at a sensitivity of 0.5, a property of the detector; sensitivity in [0, 1]. Returns opacities, (H, W)
    uint8: 0 keeps the sample, 255 repairs it in full. Raises InvalidOption for a sensitivity out of range.
    """
    if not 0.0 <= sensitivity <= 1.0:
        raise InvalidOption(f"sensitivity is {sensitivity}, expected a number in [0, 1]")
    first_seed = math.log(seed_certainty / (1.0 - seed_certainty)) - SENSITIVITY_LOGITS * (sensitivity - 0.5)
    opacities = np.zeros(damage_map.shape, np.uint8)
    for grade in range(1, NUM_GRADES + 1):
        share = (grade - 1) / (NUM_GRADES - 1)
        seeds = damage_map >= _level(first_seed + SEED_FADE * share)
        if not seeds.any():
            break
        suspects = damage_map >= _level(first_seed - SUSPECT_GAP + SUSPECT_FADE * share)
        opacities[_connected_to(seeds, suspects)] = grade * 255 // NUM_GRADES
    return opacities


def _level(logit: float) -> int:
    """The map's level from which on damage is at least so certain; 0 is never damage, 255 always."""
    return min(max(1, math.ceil(255.0 / (1.0 + math.exp(-logit)))), 255)


def _connected_to(seeds: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """The connected areas of `suspects` that hold a seed; all (H, W) bool."""
    areas, num_areas = ndimage.label(suspects, structure=_EIGHT_NEIGHBOURS)
    has_seed = np.zeros(num_areas + 1, bool)
    for row_areas, row_seeds in zip(areas, seeds, strict=True):  # by row, because a copy of `areas` may be 400 MB
        has_seed[row_areas[row_seeds]] = True
    connected: np.ndarray = has_seed[areas]
    return connected
