"""How sure the detector must be: chosen on held-out clean photographs, so that they stay clean.

A detector learns from pictures most of which are damaged; most samples of a scan are not. How far its logits have to be
shifted for the one to become the other (Saerens et al. 2002) is measured, not assumed, and so is how far they have to
be stretched: how much more a sure sample says than a doubtful one (Guo et al. 2017, arXiv 1706.04599).

Each print is looked at once. What the detector said is kept as maps that reach farther than those which are served; any
other stretch and shift is then a lookup, and the decisions are the restorer's own.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from restoration.generator import DetectFill
from restoration.masks import THIN_PX, grade_damage
from restoration.passes import Seen, TilePass
from restoration.pyramid import PyramidPass, copies_of
from restoration.tensors import to_model_range, to_samples
from restoration.tile_generator import TileGenerator
from restoration.toning import find_tone
from restoration.windows import opened
from training.cases import Case
from training.damage import age_photos
from training.evaluation import mean_of, place

SCALES = (1.0, 1.25, 1.5, 2.0)
"""What the logits are multiplied by: those that are tried."""
SHIFTS = tuple(step / 4 for step in range(81))
"""0 to 20, in logits, subtracted after that: those that are tried."""
UNCHANGED_SHARE = 0.965
"""Of clean photographs at the default sensitivity, most of them as old prints: more than is hoped for of others."""
REQUIRED_EVIDENCE = 5.5
"""Of a calibrated detector: a single sample must be as certain as a map of eight bits can tell."""
LEAST_KEPT_SHARE = 0.9999
"""Of what lies away from the damage of damaged photographs. A smaller scale finds more, and takes more that is none:
with 99.98 % a forehead beside a crack was painted over on a real photograph, with 99.99 % it was not."""
FILLED_SHARE, FILLED_LEVELS = 0.35, 25.0
"""What is filled is still off by this share of the damage, by so many levels at most, about."""
REPAINTED_LEVELS, REPAINTED_WIDE_LEVELS = 8.0, 40.0
"""And what is filled without need by so many, thin or as wide as `masks.THIN_PX`
([measured](../docs/decisions/0055-what-is-wide-must-be-certain-for-the-most-part.md))."""
ROUNDING_VARIANCE = 1.0 / 12.0
"""Of samples that are whole levels: a photo that is restored in full is not infinitely better."""
VERIFIED_SHARE = 0.03
"""Of clean photographs, most of them as old prints, what the verifier may be asked to look at, about."""
MIN_PHOTOS = 20
"""With fewer, one more or less would decide."""

KEPT_SCALE, KEPT_SHIFT = 0.25, 0.75
"""Of the maps that are kept: eight bits then reach from -19 to 25 in logits, by steps of a sixteenth around 3, where
most is decided, and of half a logit at 15."""


@dataclass(frozen=True)
class Calibration:
    """scale, shift: the logits that decide are multiplied, then less; suspect_shift: the same of a detector's that has
    a verifier; unchanged_share: of clean prints, what then came back unchanged. Means over the cases: kept_share, of
    what lies away from damage, what was not repaired; gain_db, see `expected_gain_db`."""

    scale: float
    shift: float
    suspect_shift: float | None
    unchanged_share: float
    kept_share: float
    gain_db: float


@dataclass(frozen=True, eq=False)
class KeptLook:
    """What was said of one copy of a print, (h, w) uint8 each, as `KEPT_SCALE` and `KEPT_SHIFT` have it, all over it.

    first: at the first look; again: after each orientation in which it was looked at again.
    """

    first: np.ndarray
    again: Sequence[np.ndarray]


class KeptPass(TilePass):
    """What a `TilePass` would find in a print that was looked at before, were its logits scaled and shifted so.

    looks: of each copy of the print, by its height and width; first, second: the levels of each look's map by those of
    the kept one, (256,) uint8.
    """

    def __init__(
        self,
        generator: TileGenerator,
        looks: Mapping[tuple[int, ...], KeptLook],
        first: np.ndarray,
        second: np.ndarray,
    ) -> None:
        super().__init__(generator)
        self._looks = looks
        self._first, self._second = first, second

    def look_once(
        self, colour: np.ndarray, told: np.ndarray | None = None, *, tells: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return self._first[self._looks[colour.shape[:2]].first], None

    def look_in_turn(self, turn: int, copies: Sequence[Seen], suspects: Sequence[np.ndarray]) -> None:
        for copy, is_suspect in zip(copies, suspects, strict=True):
            kept = self._looks[copy.damage_map.shape].again[turn]
            np.copyto(copy.damage_map, self._second[kept], where=is_suspect)


def _served_levels(scale: float, shift: float) -> np.ndarray:
    """(256,) uint8: of each level of a kept map, that of the map with this scale and shift."""
    kept = np.clip(np.arange(256) / 255.0, 0.25 / 255.0, 254.75 / 255.0)  # the ends stand for all beyond them
    logits = (np.log(kept / (1.0 - kept)) + KEPT_SHIFT) / KEPT_SCALE
    served: np.ndarray = np.rint(255.0 / (1.0 + np.exp(shift - scale * logits))).astype(np.uint8)
    return served


class KeptPrint:
    """A print, and what was said of it: whatever the scale and the shift, the detector need not look again."""

    def __init__(self, generator: TileGenerator, samples: np.ndarray) -> None:
        """generator: with `KEPT_SCALE` and `KEPT_SHIFT`; samples: (H, W, 3) uint8."""
        tone = find_tone(samples)
        self._generator = generator
        self._colour = tone.to_grey(samples) if tone else samples
        self._looks = _look(TilePass(generator), copies_of(self._colour))

    def opacities(self, scale: float, shift: float, suspect_shift: float | None = None) -> np.ndarray:
        """(H, W) uint8: what would be repaired at the default sensitivity. suspect_shift: needed with a verifier."""
        second = _served_levels(scale, shift)
        first = second if suspect_shift is None else _served_levels(1.0, suspect_shift)
        one_pass = KeptPass(self._generator, self._looks, first, second)
        return _decide(PyramidPass(one_pass, _decide).detect(self._colour))

    def verified_share(self, suspect_shift: float) -> float:
        """Of the print, what a detector with this shift suspects, and what lies near it."""
        levels = _served_levels(1.0, suspect_shift)
        look = self._looks[self._colour.shape[:2]]
        return float(KeptPass(self._generator, self._looks, levels, levels).find_suspects(levels[look.first]).mean())

    def least_shift(self, scale: float, suspect_shift: float | None = None) -> int:
        """The index in `SHIFTS` of the smallest with which nothing is repaired; their number if it is with each.

        What is unchanged stays so at any larger shift.
        """
        return bisect_left(
            range(len(SHIFTS)),
            True,
            key=lambda index: not self.opacities(scale, SHIFTS[index], suspect_shift).any(),
        )


def _decide(damage_map: np.ndarray) -> np.ndarray:
    return grade_damage(damage_map, REQUIRED_EVIDENCE)


def _look(one_pass: TilePass, copies: Sequence[np.ndarray]) -> dict[tuple[int, ...], KeptLook]:
    """The looks by the copies' sizes; each is told of what was seen on the smaller one."""
    told: np.ndarray | None = None
    first = []
    for copy in reversed(copies):
        damage_map, told = one_pass.look_once(copy, told, tells=copy is not copies[0])
        first.append(damage_map)
    seen = [Seen(copy, np.zeros(copy.shape[:2], np.uint8)) for copy in copies]
    everywhere = [np.ones(copy.shape[:2], bool) for copy in copies]
    again: list[list[np.ndarray]] = [[] for _ in copies]
    for turn in range(one_pass.num_turns):
        one_pass.look_in_turn(turn, seen, everywhere)
        for maps, copy in zip(again, seen, strict=True):
            maps.append(copy.damage_map.copy())
    return {
        copy.shape[:2]: KeptLook(damage_map, maps)
        for copy, damage_map, maps in zip(copies, reversed(first), again, strict=True)
    }


def calibrate(
    generator: DetectFill,
    photos: Sequence[np.ndarray],
    cases: Iterable[Case],
    device: torch.device,
    *,
    unchanged_share: float,
) -> Calibration:
    """Of each scale, the smallest shift with which that share of the photos comes back unchanged, or the largest that
    is tried; of these pairs the one that gains most, if it keeps `LEAST_KEPT_SHARE`, or else what keeps most.

    photos: (H, W, 3) uint8, clean and not trained on, of the size of the evaluation's; see `_as_prints` for how each is
    shown. cases: damaged ones, of none of the evaluation's photographs.
    """
    looking = place(for_keeping(generator), device)
    prints = [KeptPrint(looking, each) for each in _as_prints(photos)]
    suspect_shift = find_suspect_shift(prints) if generator.has_verifier else None
    least_shifts = {scale: sorted(kept.least_shift(scale, suspect_shift) for kept in prints) for scale in SCALES}
    damaged = [(KeptPrint(looking, case.damaged), case) for case in cases]
    tried = []
    for scale, shifts in least_shifts.items():
        needed = shifts[math.ceil(unchanged_share * len(shifts)) - 1]
        chosen = min(needed, len(SHIFTS) - 1)
        shift, unchanged = SHIFTS[chosen], sum(each <= chosen for each in shifts) / len(shifts)
        repaired = [(case, kept.opacities(scale, shift, suspect_shift)) for kept, case in damaged]
        kept_share = mean_of([_share_kept(case, opacities) for case, opacities in repaired])
        gain_db = mean_of([expected_gain_db(case, opacities) for case, opacities in repaired])
        tried.append(Calibration(scale, shift, suspect_shift, unchanged, kept_share, gain_db))
    return max(tried, key=lambda each: (min(each.kept_share, LEAST_KEPT_SHARE), each.gain_db))


def _share_kept(case: Case, opacities: np.ndarray) -> float:
    """Of what lies away from damage; NaN where nothing does."""
    is_away = case.is_away
    return 1.0 - float((opacities > 0)[is_away].mean()) if is_away.any() else math.nan


def expected_gain_db(case: Case, opacities: np.ndarray) -> float:
    """By how much the PSNR is likely to rise where so much is repaired, (H, W) uint8, by a filler as ours is.

    Nothing is filled for it: that would take minutes for each pair that is tried.
    """
    change, share = case.change.astype(np.float32), opacities / np.float32(255.0)
    is_wide = opened((opacities > 0) & ~case.altered, THIN_PX // 2)
    repainted = np.where(is_wide, np.float32(REPAINTED_WIDE_LEVELS), np.float32(REPAINTED_LEVELS))
    filled = share * np.where(case.altered, np.minimum(FILLED_SHARE * change, FILLED_LEVELS), repainted)
    before, after = (
        float(np.square(each).mean()) + ROUNDING_VARIANCE for each in (change, (1 - share) * change + filled)
    )
    return 10.0 * math.log10(before / after)


def find_suspect_shift(prints: Sequence[KeptPrint]) -> float:
    """The smallest with which the verifier is asked for no more than `VERIFIED_SHARE` of clean prints."""
    index = bisect_left(
        range(len(SHIFTS) - 1),
        True,
        key=lambda index: mean_of([kept.verified_share(SHIFTS[index]) for kept in prints]) <= VERIFIED_SHARE,
    )
    return SHIFTS[index]


def with_calibration(
    generator: DetectFill, scale: float, shift: float, suspect_shift: float | None = None
) -> DetectFill:
    """A copy that is surer, or less sure, of what is damage; suspect_shift: of a generator with a verifier."""
    return _with_config(generator, **calibrated_settings(scale, shift, suspect_shift))


def calibrated_settings(scale: float, shift: float, suspect_shift: float | None) -> dict[str, float]:
    """What of a config is calibrated, by its name; suspect_shift: None where the detector itself decides."""
    if suspect_shift is None:
        decisive = {"detector_scale": scale, "detector_shift": shift}
    else:
        suspicious = {"detector_scale": 1.0, "detector_shift": suspect_shift}
        decisive = {"verifier_scale": scale, "verifier_shift": shift, **suspicious}
    return {**decisive, "required_evidence": REQUIRED_EVIDENCE}


def for_keeping(generator: DetectFill) -> DetectFill:
    """A copy whose maps reach as far as those that are kept."""
    kept = with_calibration(generator, KEPT_SCALE, KEPT_SHIFT)
    return _with_config(kept, verifier_scale=KEPT_SCALE, verifier_shift=KEPT_SHIFT)


def _with_config(generator: DetectFill, **settings: float) -> DetectFill:
    copy = deepcopy(generator)
    copy.config = replace(generator.config, **settings)
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
