"""From the soft damage map to the binary mask: which samples will be written."""

import numpy as np
from scipy import ndimage

from restoration.errors import InvalidOption

SENSITIVITIES = (0.0, 0.5, 1.0)
HIGH_THRESHOLDS = (0.99, 0.95, 0.10)
"""Damage of at least this certainty is damage, at the sensitivities above and between them. The middle was chosen for
release 0001 on photographs of its training with held-out damage: lower harms clean photos more than it finds, higher
gives up strokes and holes."""
LOW_THRESHOLDS = (0.85, 0.60, 0.04)
"""Damage of at least this certainty is damage if it is connected to certain damage."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def threshold_damage(damage_map: np.ndarray, sensitivity: float = 0.5) -> np.ndarray:
    """Threshold with hysteresis: faint stretches of a certain scratch survive, faint islands do not.

    damage_map: (H, W) uint8, 255 is certain damage; sensitivity in [0, 1]: at 0 only what is all but certain counts,
    at 1 whatever is faintly suspect. Returns (H, W) bool. Raises InvalidOption for a sensitivity out of range.
    """
    if not 0.0 <= sensitivity <= 1.0:
        raise InvalidOption(f"sensitivity is {sensitivity}, expected a number in [0, 1]")
    seeds = damage_map >= _level(HIGH_THRESHOLDS, sensitivity)
    if not seeds.any():
        return seeds
    suspects = damage_map >= _level(LOW_THRESHOLDS, sensitivity)
    return _connected_to(seeds, suspects)


def _level(thresholds: tuple[float, ...], sensitivity: float) -> int:
    return int(np.ceil(np.interp(sensitivity, SENSITIVITIES, thresholds) * 255.0))


def _connected_to(seeds: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """The connected areas of `suspects` that hold a seed; all (H, W) bool."""
    areas, num_areas = ndimage.label(suspects, structure=_EIGHT_NEIGHBOURS)
    has_seed = np.zeros(num_areas + 1, bool)
    for row_areas, row_seeds in zip(areas, seeds, strict=True):  # by row, because a copy of `areas` may be 400 MB
        has_seed[row_areas[row_seeds]] = True
    connected: np.ndarray = has_seed[areas]
    return connected
