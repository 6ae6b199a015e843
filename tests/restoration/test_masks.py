import itertools
import time
import tracemalloc

import numpy as np
import pytest
from skimage.draw import disk, line

from restoration import masks
from restoration.errors import InvalidOption
from restoration.windows import opened

REQUIRED = 5.5


def grade_damage(damage_map: np.ndarray, sensitivity: float = 0.5) -> np.ndarray:
    return masks.grade_damage(damage_map, REQUIRED, sensitivity)


def empty_map(height_px: int = 100, width_px: int = 100) -> np.ndarray:
    return np.zeros((height_px, width_px), np.uint8)


def spot(level: int, num_samples: int) -> np.ndarray:
    """A row of so many samples of one level."""
    damage_map = empty_map(320, 480)
    damage_map[20, 5 : 5 + num_samples] = level
    return damage_map


def test_nothing_suspected_gives_an_empty_mask_at_any_sensitivity():
    for sensitivity in (0.0, 0.5, 1.0):
        assert not grade_damage(empty_map(), sensitivity).any()


def test_large_and_certain_damage_is_repaired_in_full_at_any_sensitivity():
    for sensitivity in (0.0, 0.5, 1.0):
        assert (grade_damage(empty_map() + 255, sensitivity) == 255).all()


def test_a_speck_must_be_all_but_certain():
    assert grade_damage(spot(255, 1)).any()
    assert not grade_damage(spot(230, 1)).any()
    assert not grade_damage(spot(230, 4)).any()


def test_less_certainty_will_do_for_a_longer_scratch():
    """Each doubling makes up for a logit: 248 is at 3.5, so four samples are as good as one at 5.5."""
    level = masks.level_of(3.5)
    found = {num: bool(grade_damage(spot(level, num)).any()) for num in (1, 2, 3, 4, 8)}
    assert found == {1: False, 2: False, 3: False, 4: True, 8: True}
    level = masks.level_of(1.5)
    assert not grade_damage(spot(level, 15)).any()
    assert grade_damage(spot(level, 16)).any()


def test_what_is_rather_no_damage_than_damage_is_none_however_large():
    assert not grade_damage(empty_map(1000, 1000) + np.uint8(127)).any()


def test_the_faint_stretch_of_a_certain_scratch_survives():
    damage_map = empty_map()
    damage_map[50, 10:40] = 255
    damage_map[50, 40:90] = 100
    assert (grade_damage(damage_map)[50, 10:90] == 255).all()


def test_a_faint_island_does_not_survive():
    damage_map = empty_map(320, 480)
    damage_map[50, 10:40] = 255
    damage_map[20, 10:40] = masks.level_of(-5.0)
    opacities = grade_damage(damage_map)
    assert (opacities[50, 10:40] == 255).all()
    assert not opacities[:40].any()


def test_where_much_is_certain_more_is_believed():
    """A photo that is damaged in one place is likely damaged in others."""
    faint, faint_alone = empty_map(320, 480), empty_map(320, 480)
    for damage_map in (faint, faint_alone):
        damage_map[20, 10:40] = masks.level_of(0.0)
    faint[50:60, 10:40] = 255
    assert grade_damage(faint)[20, 10:40].all()
    assert not grade_damage(faint_alone).any()


def test_many_faint_cracks_are_evidence_and_few_are_not():
    """None of them would do by itself."""
    faint = masks.level_of(0.0)
    cracked, textured = (np.zeros((320, 480), np.uint8) for _ in range(2))
    cracked[10:310:10, 20:460] = faint
    textured[10, 20:60] = faint
    assert (grade_damage(cracked) > 0)[cracked > 0].all()
    assert not grade_damage(textured).any()


def test_what_a_photo_is_is_not_a_matter_of_its_resolution():
    damage_map = np.zeros((320, 480), np.uint8)
    damage_map[100, ::8] = masks.level_of(1.0)
    enlarged = np.kron(damage_map, np.ones((3, 3), np.uint8))
    assert masks._evidence_of_photo(damage_map, 0.0) == pytest.approx(masks._evidence_of_photo(enlarged, 0.0))
    assert masks._evidence_of_photo(empty_map(), 0.0) == -np.inf


def test_a_scratch_holds_together_across_corners():
    damage_map = empty_map()
    rows, columns = line(5, 5, 95, 70)
    damage_map[rows, columns] = 220
    assert grade_damage(damage_map)[rows, columns].all()


def test_a_certain_scratch_does_not_take_a_faint_floor_with_it():
    damage_map = np.full((200, 200), 1, np.uint8)
    damage_map[100, 20:180] = 255
    assert np.array_equal(grade_damage(damage_map) > 0, damage_map == 255)


def test_what_is_wide_and_mostly_doubtful_is_none_and_a_thin_scratch_or_a_certain_hole_is():
    """Of true damage that is wide most samples are certain; of a lamp, or a cable, few."""
    doubtful, certain = masks.level_of(-4.0), masks.level_of(2.0)

    def found(shape: tuple[slice, slice], core: tuple[slice, slice]) -> bool:
        damage_map = empty_map(320, 480)
        damage_map[shape] = doubtful
        damage_map[core] = certain
        return bool(grade_damage(damage_map).any())

    lamp = slice(100, 160), slice(100, 160)
    assert not found(lamp, (slice(125, 135), slice(125, 135)))
    assert found(lamp, (slice(105, 155), slice(105, 155)))
    assert found((slice(100, 101), slice(100, 460)), (slice(100, 101), slice(100, 200)))


@pytest.mark.parametrize("top", [0, 40, 58, 120, 250])
def test_how_wide_an_area_is_does_not_depend_on_the_rows_that_are_looked_at_at_a_time(monkeypatch, top):
    rng = np.random.default_rng(top)
    damage_map = empty_map(320, 480)
    damage_map[top : top + 60, 100:160] = rng.integers(1, 200, (60, 60))
    damage_map[top + 12 : top + 14] = 200
    damage_map[top + 20 : top + 50, 200:215] = 200
    found = grade_damage(damage_map)
    assert found.any()
    is_suspect = damage_map >= 60
    by_bands = [masks._wide_parts(is_suspect, slice(row, row + 64)) for row in range(0, 320, 64)]
    assert np.array_equal(np.concatenate(by_bands), opened(is_suspect, masks.THIN_PX // 2))
    monkeypatch.setattr("restoration.areas.BAND_PX", 1000)
    assert np.array_equal(found, grade_damage(damage_map))


def test_higher_sensitivity_only_adds():
    damage_map = empty_map(300, 300)
    for index, level in enumerate(np.linspace(20, 255, 25).astype(int)):
        row, column = divmod(index, 5)
        damage_map[disk((row * 55 + 30, column * 55 + 30), 1 + index % 7)] = level
    opacities = [grade_damage(damage_map, sensitivity) for sensitivity in np.linspace(0.0, 1.0, 11)]
    for less, more in itertools.pairwise(opacities):
        assert (less <= more).all()
    assert opacities[0].sum() < opacities[5].sum() < opacities[-1].sum()


def test_a_tenth_of_sensitivity_is_less_than_a_doubling_of_the_area():
    """Steps that a user can make."""
    first_levels = [
        next(level for level in range(256) if grade_damage(spot(level, 16), sensitivity).any())
        for sensitivity in (0.4, 0.5, 0.6, 0.7)
    ]
    logits = [float(np.log(level / (255 - level))) for level in first_levels]
    assert all(0.5 < more - less < 1.0 for less, more in itertools.pairwise(reversed(logits)))


def test_above_the_default_what_is_wide_is_taken_for_damage_half_as_much_more_readily_as_what_is_thin():
    """400 samples each, as a line and as a square: by default and below they count alike."""

    def least_level(shape: tuple[slice, slice], sensitivity: float) -> int:
        damage_map = empty_map(500, 500)
        for level in range(1, 256):
            damage_map[shape] = level
            if grade_damage(damage_map, sensitivity).any():
                return level
        raise AssertionError

    line, square = (slice(50, 51), slice(50, 450)), (slice(50, 70), slice(50, 70))
    for sensitivity in (0.3, 0.5):
        assert least_level(line, sensitivity) == least_level(square, sensitivity)
    for sensitivity in (0.7, 0.9):
        halfway = 0.5 + (sensitivity - 0.5) / 2
        assert least_level(line, sensitivity) < least_level(square, sensitivity) == least_level(line, halfway)


def test_small_copies_are_graded_as_by_default_whatever_is_asked_above_it():
    doubtful = masks.level_of(-3.0)
    for side_px, sensitivity in ((319, 0.5), (320, 1.0)):
        damage_map = empty_map(side_px, 400)
        damage_map[50, 50:300] = doubtful
        copy = masks.grade_copy(damage_map, REQUIRED, 1.0)
        assert np.array_equal(copy, grade_damage(damage_map, sensitivity))
    assert copy.any()
    assert not masks.grade_copy(damage_map[:319], REQUIRED, 1.0).any()
    assert not masks.grade_copy(damage_map, REQUIRED, 0.2).any()


def test_damage_on_the_brink_fades_in():
    """At the second look, that is: what the first one finds is beyond it."""
    found = []
    for num_samples in range(1, 200):
        damage_map = empty_map(320, 480)
        damage_map[100:150, :100] = 255
        damage_map[20, 5 : 5 + num_samples] = masks.level_of(-2.5)
        found.append(int(grade_damage(damage_map)[20].max()))
    assert found[0] == 0
    assert found[-1] == 255
    assert all(less <= more for less, more in itertools.pairwise(found))
    assert max(more - less for less, more in itertools.pairwise(found)) <= 64


def test_one_pixel_photos_have_masks():
    assert grade_damage(np.full((1, 1), 255, np.uint8)).all()


@pytest.mark.parametrize("sensitivity", [-0.1, 1.1, float("nan")])
def test_a_sensitivity_out_of_range_is_refused(sensitivity):
    with pytest.raises(InvalidOption, match="sensitivity"):
        grade_damage(empty_map(), sensitivity)


def test_noise_over_many_megapixels_takes_seconds_not_minutes():
    damage_map = np.random.default_rng(0).integers(0, 256, (2000, 4000)).astype(np.uint8)
    started = time.process_time()
    grade_damage(damage_map)
    assert time.process_time() - started < 10.0


def test_the_areas_of_one_level_are_held_at_a_time():
    """They take four bytes a sample, and everything else four."""
    damage_map = empty_map(1000, 1000)
    damage_map[300:303, :900] = 254
    damage_map[600:603, :900] = 100
    tracemalloc.start()
    try:
        grade_damage(damage_map)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * damage_map.size
