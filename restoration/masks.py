"""From the soft damage map to opacities: how much of the repair each sample takes."""

import numpy as np
from scipy import ndimage

from restoration.errors import InvalidOption

SENSITIVITIES = (0.0, 0.5, 1.0)
SEED_THRESHOLDS = ((0.996, 0.985, 0.04), (1.0, 1.0, 0.20))
"""Damage starts to be repaired from the first certainty on, and is repaired in full from the second, at the
sensitivities above and between them. The middle was chosen for release 0002 on held-out photographs that are not among
the evaluation's cases: from 0.92 on a tenth of the clean ones was changed, from 0.98 on a twenty-fifth."""
SUSPECT_THRESHOLDS = ((0.40, 0.12, 0.02), (0.80, 0.55, 0.10))
"""The same for what is connected to a seed: faint stretches of a certain scratch."""
NUM_GRADES = 8

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def grade_damage(damage_map: np.ndarray, sensitivity: float = 0.5) -> np.ndarray:
    """Hysteresis in grades: faint stretches of a certain scratch survive, faint islands do not.

    With one pair of thresholds, a speck on the brink would be there or not; two grids of tiles, or two scans of one
    photo, would differ visibly. Here it fades in, by a quarter at most for a level of the map: a grade is reached by
    what is connected, at that grade's thresholds, to a seed of it.

    damage_map: (H, W) uint8, 255 is certain damage; sensitivity in [0, 1]: at 0 only what is all but certain counts,
    at 1 whatever is faintly suspect. Returns opacities, (H, W) uint8: 0 keeps the sample, 255 repairs it in full.
    Raises InvalidOption for a sensitivity out of range.
    """
    if not 0.0 <= sensitivity <= 1.0:
        raise InvalidOption(f"sensitivity is {sensitivity}, expected a number in [0, 1]")
    opacities = np.zeros(damage_map.shape, np.uint8)
    for grade in range(1, NUM_GRADES + 1):
        seeds = damage_map >= _level(SEED_THRESHOLDS, sensitivity, grade)
        if not seeds.any():
            break
        suspects = damage_map >= _level(SUSPECT_THRESHOLDS, sensitivity, grade)
        opacities[_connected_to(seeds, suspects)] = grade * 255 // NUM_GRADES
    return opacities


def _level(thresholds: tuple[tuple[float, ...], ...], sensitivity: float, grade: int) -> int:
    first, last = (np.interp(sensitivity, SENSITIVITIES, each) for each in thresholds)
    return int(np.ceil(np.interp(grade, (1, NUM_GRADES), (first, last)) * 255.0))


def _connected_to(seeds: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """The connected areas of `suspects` that hold a seed; all (H, W) bool."""
    areas, num_areas = ndimage.label(suspects, structure=_EIGHT_NEIGHBOURS)
    has_seed = np.zeros(num_areas + 1, bool)
    for row_areas, row_seeds in zip(areas, seeds, strict=True):  # by row, because a copy of `areas` may be 400 MB
        has_seed[row_areas[row_seeds]] = True
    connected: np.ndarray = has_seed[areas]
    return connected
