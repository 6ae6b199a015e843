import cv2
import numpy as np
import pytest

from training.stains import _blot, _fingerprint, _foxing, _leaked_light, _mould, _spread, _tape, _tide_marks

KINDS = (_blot, _tide_marks, _foxing, _mould, _fingerprint, _tape, _leaked_light)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_on_part_of_the_print(kind):
    rng = np.random.default_rng(1)
    drawn = [kind(128, rng) for _ in range(8)]
    shares = np.array([(opacity > 0.15).mean() for opacity, _ in drawn])
    assert (shares > 0.001).sum() >= 5
    assert np.median(shares) < 0.8
    assert all(tone.min() >= 0.0 and tone.max() <= 1.0 for _, tone in drawn)


def test_a_tide_mark_is_darkest_at_its_rim():
    means = []
    for seed in range(24):
        inside = _spread(128, np.random.default_rng(seed))  # where the mark drawn from this seed spread
        opacity, _ = _tide_marks(128, np.random.default_rng(seed))
        means.append([opacity[(low < inside) & (inside < high)].mean() for low, high in ((-9, -0.05), (-0.02, 0.04))])
        means[-1].append(opacity[inside > 0.1].mean() if (inside > 0.1).any() else np.nan)
    outside, rim, within = np.nanmean(means, axis=0)
    assert outside < 0.01
    assert rim > 1.4 * within


def test_foxing_is_of_many_sizes():
    areas_px: list[float] = []
    for seed in range(12):
        opacity, _ = _foxing(256, np.random.default_rng(seed))
        _, _, spots, _ = cv2.connectedComponentsWithStats((opacity > 0.08).astype(np.uint8))
        areas_px += [area for area in spots[1:, cv2.CC_STAT_AREA] if area > 3]
    a_small_one, a_large_one = np.quantile(areas_px, (0.25, 0.9))
    assert a_large_one > 6 * a_small_one


def test_tape_has_straight_sides_where_a_blot_has_none():
    def corners(draw, seed: int) -> int:
        opacity, _ = draw(160, np.random.default_rng(seed))
        outlines, _ = cv2.findContours((opacity > 0.12).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return sum(len(cv2.approxPolyDP(outline, 1.5, True)) for outline in outlines)

    of_tape, of_blots = (np.median([corners(draw, seed) for seed in range(20)]) for draw in (_tape, _blot))
    assert of_tape <= 14
    assert of_blots > 1.5 * of_tape
