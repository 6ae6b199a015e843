import numpy as np
import pytest

from training.cases import (
    CASE_FAMILIES,
    SIZES,
    Size,
    damage_config,
    make_at_size,
    make_case,
    make_cases,
    make_heavy,
    photo_of,
)
from training.overlays import build_bank
from training.samples import crop_sample

PHOTOS = [crop_sample(name, 96) for name in ("astronaut", "coffee")]
NAMES = ["astronaut", "coffee"]


@pytest.fixture(scope="module")
def full_bank(overlay_folder):
    return build_bank("evaluation", overlay_folder=overlay_folder, held_out_share=0.5, side_px=96, num_per_family=6)


def test_every_family_has_cases_with_visible_damage_and_clean_has_none(full_bank):
    cases = list(make_cases(PHOTOS, NAMES, full_bank, num_per_family=1, seed=1))
    assert list(dict.fromkeys(case.family for case in cases)) == list(CASE_FAMILIES)
    for case in cases:
        assert case.damaged.shape == case.clean.shape == (96, 96, 3)
        assert case.damaged.dtype == np.uint8
        assert case.visible.any() == case.altered.any() == (case.family != "clean")


def test_without_overlay_files_every_family_has_cases_too(bank):
    families = [case.family for case in make_cases(PHOTOS, NAMES, bank, num_per_family=2, seed=1)]
    assert families == [family for family in CASE_FAMILIES for _ in range(2)]


def test_clean_cases_are_of_every_photo(bank):
    cases = [case for case in make_cases(PHOTOS, NAMES, bank, num_per_family=1, seed=1) if case.family == "clean"]
    assert sorted(case.name for case in cases) == sorted(NAMES)


def test_no_photo_is_shown_twice_before_every_other_was_shown(bank):
    photos, names = [crop_sample("astronaut", 64)] * 5, [str(index) for index in range(5)]
    cases = list(make_cases(photos, names, bank, num_per_family=7, seed=2))
    shown = [case.name for case in cases if case.family == "dust"]
    assert sorted(shown[:5]) == names
    assert shown[5:] == shown[:2]
    assert shown != sorted(shown)


def test_heavy_damage_hides_more_than_mixtures_do(bank):
    heavy, mixtures = (
        [make_case(PHOTOS[0], "astronaut", family, bank, seed=seed).visible.mean() for seed in range(12)]
        for family in ("heavy", "mixtures")
    )
    assert np.mean(heavy) > np.mean(mixtures)


def test_cases_are_made_at_a_size(bank):
    wide = [photo[:64] for photo in PHOTOS]
    heavy = list(make_heavy(wide, NAMES, bank, num=1, seed=1))
    size = Size(128, 1.0, ("strokes", "mixtures"))
    at_size = list(make_at_size(wide, NAMES, bank, size, num=1, seed=1))
    scans = list(make_at_size(wide, NAMES, bank, Size(160, 1.0, ("dust", "clean"), is_scan=True), num=1, seed=1))
    assert [case.family for case in heavy] == ["heavy"]
    assert [case.family for case in at_size] == ["strokes at 128 px", "mixtures at 128 px"]
    assert [case.family for case in scans] == ["dust at 160 px", "clean at 160 px"]
    assert [case.damaged.shape[:2] for case in (*heavy, *at_size)] == [(64, 96), (128, 192), (128, 192)]
    assert [case.damaged.shape[:2] for case in scans] == [(160, 160), (160, 160)]
    assert [case.visible.any() for case in (*heavy, *at_size, *scans)] == [True, True, True, True, False]


def test_sizes_reach_from_256_to_3000_px_and_the_largest_has_few_cases():
    assert [size.short_side_px for size in SIZES] == [256, 1000, 3000]
    assert [size.num_cases(24) for size in SIZES] == [4, 2, 2]
    assert SIZES[-1].num_cases(11) == 0


def test_equal_seeds_make_equal_cases_others_do_not(bank):
    first, second, other = (
        [case.damaged for case in make_cases(PHOTOS, NAMES, bank, num_per_family=2, seed=seed)] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_case_shows_the_same_print_in_every_family(bank):
    cases = [case for case in make_cases(PHOTOS, NAMES, bank, num_per_family=2, seed=3) if case.family != "clean"]
    assert len(cases) == 2 * (len(CASE_FAMILIES) - 1)
    for number in (0, 1):
        prints = [case.clean for case in cases[number::2]]
        assert all(np.array_equal(each, prints[0]) for each in prints)


def test_a_case_is_altered_where_it_differs_and_visible_where_it_differs_much(bank):
    case = make_case(PHOTOS[0], "astronaut", "strokes", bank, seed=4)
    difference = np.abs(case.damaged.astype(int) - case.clean).max(axis=2)
    assert np.array_equal(case.altered, difference >= 2)
    assert not (case.visible & (difference < 8)).any()
    assert case.visible[difference >= 60].all()
    assert 0 < case.visible.sum() <= case.altered.sum() < case.altered.size
    unaltered = ~case.altered
    assert np.abs(case.damaged[unaltered].astype(int) - case.clean[unaltered]).max() <= 1


def test_a_case_is_sent_without_loss(bank):
    case = make_case(PHOTOS[0], "astronaut", "mixtures", bank, seed=5)
    assert case.photo().format == "png"
    assert np.array_equal(case.photo().samples, case.damaged)
    assert np.array_equal(photo_of(PHOTOS[1]).samples, PHOTOS[1])


@pytest.mark.parametrize("family", CASE_FAMILIES)
def test_shares_of_layers_add_up(family):
    config = damage_config(family)
    assert sum(config.num_layers_shares) == 1.0
    assert (config.num_layers_shares[0] == 1.0) == (family == "clean")
