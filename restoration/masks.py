"""From the soft damage map to opacities: how much of the repair each sample takes."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby

import numpy as np

from restoration.areas import Areas, find_areas
from restoration.errors import InvalidOption
from restoration.photo_colours import bands_of
from restoration.windows import opened

CERTAINTIES = (5.5, 3.5, 1.5, 0.0)
"""The logits of the map at which its areas are weighed. Less certain areas are large when they are wrong."""
SUSPECT_GAP = 6.0
"""An area reaches as far as the map's logit is at most so much lower: to the faint stretches of a certain scratch."""
LEAST_SUSPECT = -5.5
"""What is less certain than this is never damage: the map's floor."""
FADE = 2.0
"""What just has the required evidence is repaired by a quarter; in full from three quarters of so many logits above."""
SECOND_LOOK = (4.0, 6.0)
"""By so many logits everything looks more certain in a photo that is damaged, at least and at most. Of several such
pairs it gained most on validation photographs, with as many clean ones unchanged; more gained next to nothing."""
PHOTO_CERTAINTIES = (5.5, 3.5, 1.5, -0.5, -2.5, -4.0)
"""The logits of the map at which a photo is weighed as a whole: many faint cracks are evidence, too."""
PHOTO_SAMPLES = 320 * 480
"""A photo is weighed as if it had so many samples, as the detector's training photographs have; a small one as if it
were enlarged `MOST_ENLARGED` times at most, or a thumbnail's speck would weigh as much as a crack."""
MOST_ENLARGED = 4.0
THIN_PX = 11
"""What is wider gets no second look, and is no evidence for the rest: a wall between two shoulders is large and
suspect, and no crack."""
PHOTO_EXTRA = 3.0
"""So much more evidence, in logits, must a photo as a whole give than a single area must: with 2, a sky full of stars
gave enough."""
SENSITIVITY_LOGITS = 8.0
"""How much more certain everything looks at a sensitivity of 1 than at 0; a tenth of it is less than one doubling."""
DEFAULT_SENSITIVITY = 0.5
WIDE_SHARE = 0.5
"""Of what a sensitivity above the default adds, what is wide gets so much: else foreheads and skies are painted over
([measured](../docs/decisions/0053-what-a-higher-sensitivity-adds.md))."""
SMALL_COPY_PX = 320
"""On a copy of a photo whose short side is less, what is thin is wide in the photo."""

BAND_PX = 64
"""Samples are counted so many rows at a time."""


def grade_damage(damage_map: np.ndarray, required_evidence: float, sensitivity: float = 0.5) -> np.ndarray:
    """Weigh the evidence for damage of each connected area, and repair it in full, in part or not at all.

    A speck must be all but certain to be damage: buttons, leaves and highlights look like specks. Less certainty will
    do for a long scratch or a large hole: each doubling of the samples that are so certain makes up for one logit of
    it (a factor e of the odds). What is connected to damage and suspect is repaired with it; a faint island is not.
    What is wide has the less evidence, the less of it is certain.

    A photo that is damaged in one place is likely damaged in others: the prior of every sample is the photo's (an
    empirical Bayes estimate). Where an area has enough evidence, or all that is thin and suspect together, there is a
    second look at what is thin, to which everything is more certain.

    damage_map: (H, W) uint8, 255 is certain damage; required_evidence: of one sample, in logits of the map, at a
    sensitivity of 0.5, a property of the detector; sensitivity in [0, 1], above 0.5 more for what is thin than for what
    is wide. Returns opacities, (H, W) uint8: 0 keeps the sample, 255 repairs it in full. Raises InvalidOption for a
    sensitivity out of range.
    """
    if not 0.0 <= sensitivity <= 1.0:
        raise InvalidOption(f"sensitivity is {sensitivity}, expected a number in [0, 1]")
    eagerness = SENSITIVITY_LOGITS * (sensitivity - DEFAULT_SENSITIVITY)
    opacities, spare = _grade(damage_map, required_evidence, min(eagerness, WIDE_SHARE * eagerness))
    if not damage_map.any():
        return opacities
    required_of_photo = required_evidence + PHOTO_EXTRA
    if eagerness <= 0.0 and spare < 0.0 and _evidence_of_photo(damage_map, eagerness) < required_of_photo:
        return opacities  # what is thin in it cannot be evidence enough either
    thin_map = _thin_parts(damage_map)
    if eagerness > 0.0:
        spare = max(spare, _add(opacities, thin_map, required_evidence, eagerness))
    spare = max(spare, _evidence_of_photo(thin_map, eagerness) - required_of_photo)
    if spare >= 0.0:
        least, most = SECOND_LOOK
        _add(opacities, thin_map, required_evidence, eagerness + min(least + spare, most))
    return opacities


def grade_copy(damage_map: np.ndarray, required_evidence: float, sensitivity: float) -> np.ndarray:
    """`grade_damage` for a smaller copy of a photo; a small one is never graded more readily than by default."""
    if min(damage_map.shape) < SMALL_COPY_PX:
        sensitivity = min(sensitivity, DEFAULT_SENSITIVITY)
    return grade_damage(damage_map, required_evidence, sensitivity)


def _add(opacities: np.ndarray, damage_map: np.ndarray, required_evidence: float, eagerness: float) -> float:
    """Raise opacities, (H, W) uint8, to those of the map; returns the spare evidence as `_grade` does."""
    more, spare = _grade(damage_map, required_evidence, eagerness)
    np.maximum(opacities, more, out=opacities)
    return spare


def _thin_parts(damage_map: np.ndarray) -> np.ndarray:
    """The map, (H, W) uint8, where it stands out from what is wide; 0 elsewhere."""
    wide = opened(damage_map, THIN_PX // 2)
    thin: np.ndarray = damage_map * (wide < np.maximum(damage_map // 2, 1))
    return thin


def _evidence_of_photo(damage_map: np.ndarray, eagerness: float) -> float:
    """Of all its samples together, in logits; minus infinity where nothing is suspect."""
    enlarged = min(PHOTO_SAMPLES / damage_map.size, MOST_ENLARGED)
    evidence = -math.inf
    for certainty in PHOTO_CERTAINTIES:
        if num_samples := _count_from(damage_map, level_of(max(certainty - eagerness, LEAST_SUSPECT))):
            evidence = max(evidence, certainty + math.log2(num_samples * enlarged))
    return evidence


def _grade(damage_map: np.ndarray, required_evidence: float, eagerness: float) -> tuple[np.ndarray, float]:
    """Opacities, (H, W) uint8, and by how much the surest area's evidence exceeds the required: below 0, none does."""
    opacities = np.zeros(damage_map.shape, np.uint8)
    spare = -math.inf
    highest = int(damage_map.max())
    levels = {certainty: level for certainty in CERTAINTIES if (level := level_of(certainty - eagerness)) <= highest}
    for suspect_level, alike in groupby(levels, lambda certainty: _suspect_level(certainty - eagerness)):
        is_suspect = damage_map >= suspect_level
        areas = find_areas(is_suspect)
        nums_certain = {
            certainty: _count_of_areas(areas, is_suspect, partial(_at_least, damage_map, levels[certainty]))
            for certainty in alike
        }
        most = np.max([_logarithm(num) + certainty for certainty, num in nums_certain.items()], axis=0)
        if most.max(initial=-math.inf) >= required_evidence:
            most = _most_evidence(areas, is_suspect, nums_certain)
        spare = max(spare, float(most.max(initial=-math.inf)) - required_evidence)
        _repair(opacities, is_suspect, areas, most - required_evidence)
        del is_suspect, areas  # a scan's may be 400 MB: not those of two levels at once
    return opacities, spare


def _suspect_level(logit: float) -> int:
    """From which on samples are of one area with what is so certain."""
    return level_of(max(logit - SUSPECT_GAP, LEAST_SUSPECT))


def _count_from(damage_map: np.ndarray, level: int) -> int:
    return sum(int(np.count_nonzero(damage_map[rows] >= level)) for rows in bands_of(len(damage_map), BAND_PX))


def level_of(logit: float) -> int:
    """The map's level from which on damage is at least so certain; 0 is never damage."""
    return max(1, math.ceil(255.0 / (1.0 + math.exp(-logit))))


def _most_evidence(areas: Areas, is_suspect: np.ndarray, nums_certain: Mapping[float, np.ndarray]) -> np.ndarray:
    """Of each area, (num_areas,) float64: less where it is wide and most of it uncertain. nums_certain: (num_areas,)
    of each certainty.

    Certain samples speak for a stretch of a thin scratch each, but what is wide is one thing: of true damage that is
    wide most samples are certain, of a lamp few (`docs/decisions/0055`).
    """
    num_samples = _count_of_areas(areas, is_suspect, is_suspect.__getitem__)
    wide_share = _count_of_areas(areas, is_suspect, partial(_wide_parts, is_suspect)) / num_samples
    most: np.ndarray = np.max(
        [
            _logarithm(num) + certainty - wide_share * _logarithm(num_samples / np.maximum(num, 1.0))
            for certainty, num in nums_certain.items()
        ],
        axis=0,
    )
    return most


def _at_least(samples: np.ndarray, level: int, rows: slice) -> np.ndarray:
    """(h, W) bool of these rows."""
    return samples[rows] >= level


def _wide_parts(is_suspect: np.ndarray, rows: slice) -> np.ndarray:
    """Of these rows, (h, W) bool, what is as wide as `THIN_PX` and more."""
    by_px = THIN_PX // 2
    first = max(0, rows.start - 2 * by_px)  # as far as an opening sees
    around = opened(is_suspect[first : rows.stop + 2 * by_px], by_px)
    return around[rows.start - first : rows.stop - first]


def _count_of_areas(areas: Areas, is_suspect: np.ndarray, counted: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Of each area, (num_areas,) float64, the samples that count. counted: rows to (h, W) bool."""
    num_samples = np.zeros(areas.num)
    for rows, numbers in areas.in_bands():
        of_counted = numbers[counted(rows)[is_suspect[rows]]]
        if len(of_counted):  # areas are numbered from top to bottom: a band's are a part of all
            first = int(of_counted.min())
            counts = np.bincount(of_counted - first)
            num_samples[first : first + len(counts)] += counts
    return num_samples


def _logarithm(numbers: np.ndarray) -> np.ndarray:
    """Binary, float64; minus infinity of 0."""
    with np.errstate(divide="ignore"):
        logarithm: np.ndarray = np.log2(numbers)
    return logarithm


def _repair(opacities: np.ndarray, is_suspect: np.ndarray, areas: Areas, excess: np.ndarray) -> None:
    """Raise opacities, (H, W) uint8, to what the areas' evidence in excess of the required calls for."""
    share = np.where(excess >= 0.0, np.clip(excess / FADE + 0.25, 0.0, 1.0), 0.0)
    of_area = np.rint(share * 255.0).astype(np.uint8)
    if not of_area.any():
        return
    for rows, numbers in areas.in_bands():
        if (wanted := of_area[numbers]).any():
            band, where = opacities[rows], is_suspect[rows]
            band[where] = np.maximum(band[where], wanted)
