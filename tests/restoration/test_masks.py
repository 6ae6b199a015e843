import itertools
import time

import numpy as np
import pytest
from skimage.draw import line

from restoration import masks
from restoration.errors import InvalidOption
from restoration.masks import NUM_GRADES


def grade_damage(damage_map: np.ndarray, sensitivity: float = 0.5, *, seed_certainty: float = 0.8) -> np.ndarray:
    return masks.grade_damage(damage_map, seed_certainty, sensitivity)


def empty_map(height_px: int = 100, width_px: int = 100) -> np.ndarray:
    return np.zeros((height_px, width_px), np.uint8)


def test_nothing_suspected_gives_an_empty_mask_at_any_sensitivity():
    for sensitivity in (0.0, 0.5, 1.0):
        assert not grade_damage(empty_map(), sensitivity).any()


def test_certain_damage_is_masked_at_any_sensitivity():
    for sensitivity in (0.0, 0.5, 1.0):
        assert (grade_damage(empty_map() + 255, sensitivity) == 255).all()


def test_the_faint_stretch_of_a_certain_scratch_survives():
    damage_map = empty_map()
    damage_map[50, 10:40] = 255
    damage_map[50, 40:90] = 160
    assert (grade_damage(damage_map)[50, 10:90] == 255).all()


def test_a_faint_island_does_not_survive():
    damage_map = empty_map()
    damage_map[50, 10:40] = 255
    damage_map[20, 10:40] = 100
    opacities = grade_damage(damage_map)
    assert (opacities[50, 10:40] == 255).all()
    assert not opacities[:40].any()


def test_a_scratch_holds_together_across_corners():
    damage_map = empty_map()
    rows, columns = line(5, 5, 95, 70)
    damage_map[rows, columns] = 160
    damage_map[5, 5] = 255
    assert grade_damage(damage_map)[rows, columns].all()


def test_damage_counts_from_the_certainty_that_the_detector_is_calibrated_to():
    for certainty in (0.5, 0.8, 0.985):
        level = int(np.ceil(certainty * 255))
        assert not grade_damage(empty_map() + np.uint8(level - 1), seed_certainty=certainty).any()
        assert grade_damage(empty_map() + np.uint8(level), seed_certainty=certainty).all()


def test_a_tenth_of_sensitivity_is_less_than_a_logit():
    """Steps that a user can make: odds of damage change by e at most."""
    first_levels = [
        next(level for level in range(256) if grade_damage(np.full((1, 1), level, np.uint8), sensitivity).any())
        for sensitivity in (0.4, 0.5, 0.6)
    ]
    logits = [float(np.log(level / (255 - level))) for level in first_levels]
    assert all(0.5 < more - less < 1.0 for more, less in itertools.pairwise(logits))


def test_higher_sensitivity_only_adds():
    damage_map = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (100, 1))
    opacities = [grade_damage(damage_map, sensitivity) for sensitivity in np.linspace(0.0, 1.0, 11)]
    for less, more in itertools.pairwise(opacities):
        assert (less <= more).all()
    assert opacities[0].sum() < opacities[5].sum() < opacities[-1].sum()


def test_damage_on_the_brink_fades_in_by_grades():
    """A speck whose certainty rises by one level at a time is never suddenly there: a level is a quarter at most."""
    found = []
    for level in range(256):
        damage_map = empty_map(20, 20)
        damage_map[8:12, 8:12] = level
        found.append(int(grade_damage(damage_map)[10, 10]))
    assert found[0] == 0
    assert found[-1] == 255
    assert max(more - less for less, more in itertools.pairwise(found)) <= 64


def test_a_bridge_on_the_brink_joins_no_more_than_its_own_grade():
    damage_map = empty_map()
    damage_map[50, 10:40] = 255
    damage_map[50, 40:60] = 3  # just above where suspects start
    damage_map[50, 60:90] = 190
    opacities = grade_damage(damage_map)
    assert (opacities[50, 10:40] == 255).all()
    assert 0 < opacities[50, 45] == opacities[50, 70] <= 255 / NUM_GRADES * 2


def test_one_pixel_photos_have_masks():
    assert grade_damage(np.full((1, 1), 255, np.uint8)).all()


@pytest.mark.parametrize("sensitivity", [-0.1, 1.1, float("nan")])
def test_a_sensitivity_out_of_range_is_refused(sensitivity):
    with pytest.raises(InvalidOption, match="sensitivity"):
        grade_damage(empty_map(), sensitivity)


def test_noise_over_many_megapixels_takes_seconds_not_minutes():
    damage_map = np.random.default_rng(0).integers(0, 256, (2000, 4000)).astype(np.uint8)
    started = time.perf_counter()
    grade_damage(damage_map)
    assert time.perf_counter() - started < 10.0
