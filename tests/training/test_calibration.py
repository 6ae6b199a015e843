"""The detector's shift is chosen so that clean photographs stay clean."""

import math

import numpy as np
import pytest
import torch

from restoration.generator import DetectFill, DetectFillConfig
from restoration.restorer import restore_photo
from training import calibration, jobs
from training.calibration import (
    KEPT_SCALE,
    KEPT_SHIFT,
    REQUIRED_EVIDENCE,
    SCALES,
    SHIFTS,
    KeptPrint,
    calibrate,
    expected_gain_db,
    with_calibration,
)
from training.cases import Case, make_case, photo_of
from training.checkpoint import load_checkpoint
from training.evaluation import mean_of, place
from training.jobs import calibrate_run
from training.samples import crop_sample
from training.trainer import Trainer, generator_from_checkpoint, weights_digest

from .conftest import names_for, write_photos
from .small_recipes import CPU, DETECT_FILL, PIX2PIX, make_source, settings_for

PHOTOS = [crop_sample(name, 96) for name in ("astronaut", "coffee", "chelsea")]


def generator_that_says(logit: float) -> DetectFill:
    """Everywhere the same."""
    torch.manual_seed(0)
    generator = DetectFill(DetectFillConfig((8, 8), (1,), (8, 8, 8, 8), (1,), detector_shift=1.0)).eval()
    generator.detector.head.weight.data.zero_()
    generator.detector.head.bias.data.fill_(logit)
    return generator


def generator_that_sees_light(weight: float = 0.05) -> DetectFill:
    """The more certain of damage, the lighter a photo is; each photo has a logit of its own."""
    generator = generator_that_says(0.0)
    generator.detector.head.weight.data.fill_(weight)
    return generator


def is_changed(generator: DetectFill, scale: float, shift: float, photo: np.ndarray) -> bool:
    return bool(restore_photo(photo_of(photo), place(with_calibration(generator, scale, shift), CPU)).mask.any())


@pytest.mark.parametrize("unchanged_share", [0.5, 1.0])
def test_the_shift_is_the_smallest_with_which_so_many_clean_photos_stay_clean(unchanged_share):
    photos = [np.full((96, 96, 3), level, np.uint8) for level in (40, 90, 140, 190, 240)]
    generator = generator_that_sees_light()
    found = calibrate(generator, photos, [], CPU, unchanged_share=unchanged_share)
    assert found.unchanged_share >= unchanged_share
    assert 0.0 < found.shift < SHIFTS[-1]
    changed = [is_changed(generator, found.scale, found.shift, photo) for photo in photos]
    assert any(changed) == (unchanged_share < 1.0)


def test_fewer_clean_photos_that_must_stay_clean_let_more_damage_be_found():
    photos = [np.full((96, 96, 3), level, np.uint8) for level in (40, 90, 140, 190, 240)]
    half, everything = (
        calibrate(generator_that_sees_light(), photos, [], CPU, unchanged_share=share).shift for share in (0.5, 1.0)
    )
    assert half < everything


def test_a_detector_that_is_silent_needs_no_shift():
    assert calibrate(generator_that_says(-5.0), PHOTOS, [], CPU, unchanged_share=1.0).shift == SHIFTS[0]


def test_a_detector_that_no_shift_can_calm_gets_the_largest_and_the_share_says_so():
    found = calibrate(generator_that_says(40.0), PHOTOS, [], CPU, unchanged_share=0.97)
    assert (found.shift, found.unchanged_share) == (SHIFTS[-1], 0.0)


def test_of_several_scales_the_one_that_gains_most_is_taken_unless_it_harms(bank, monkeypatch):
    monkeypatch.setattr(calibration, "LEAST_KEPT_SHARE", 0.0)
    clean = [np.full((96, 96, 3), 90, np.uint8)]
    cases = [make_case(PHOTOS[0], "astronaut", "strokes", bank, seed=seed) for seed in range(3)]
    given = (generator_that_sees_light(0.4), clean, cases, CPU)
    found = calibrate(*given, unchanged_share=1.0)
    monkeypatch.setattr(calibration, "LEAST_KEPT_SHARE", 1.0)
    careful = calibrate(*given, unchanged_share=1.0)
    each = []
    for scale in SCALES:
        monkeypatch.setattr(calibration, "SCALES", (scale,))
        each.append(calibrate(*given, unchanged_share=1.0))
    assert found == max(each, key=lambda tried: tried.gain_db)
    assert careful == max(each, key=lambda tried: tried.kept_share)
    assert found != careful
    looking = place(with_calibration(given[0], found.scale, found.shift), CPU)
    masks = [restore_photo(case.photo(), looking).mask for case in cases]
    kept = [1.0 - mask[case.is_away].mean() for case, mask in zip(cases, masks, strict=True)]
    assert found.kept_share == pytest.approx(mean_of(kept), abs=0.01)
    gains = [expected_gain_db(case, mask.astype(np.uint8) * 255) for case, mask in zip(cases, masks, strict=True)]
    assert found.gain_db == pytest.approx(mean_of(gains), abs=0.3)


def test_gains_are_of_damage_that_is_repaired_less_what_is_repaired_without_need():
    clean = np.full((64, 64, 3), 100, np.uint8)
    damaged = clean.copy()
    damaged[16:32, 16:32] = 180
    case = Case("strokes", "grey", damaged, clean)
    nothing, damage, everything = np.zeros((3, 64, 64), np.uint8)
    damage[16:32, 16:32] = 255
    everything[:] = 255
    assert expected_gain_db(case, nothing) == 0.0
    assert expected_gain_db(case, damage) == pytest.approx(20 * math.log10(80 / 25), abs=0.1)
    assert 0.0 < expected_gain_db(case, damage // 2) < expected_gain_db(case, damage)
    assert expected_gain_db(case, everything) < expected_gain_db(case, damage // 2)
    thin, wide = damage.copy(), damage.copy()
    thin[40:44, 4:60] = wide[40:56, 4:18] = 255  # as many samples
    losses = [expected_gain_db(case, damage) - expected_gain_db(case, each) for each in (thin, wide)]
    assert 0.0 < losses[0] < 0.3 * losses[1]
    assert not case.is_away[13:35, 13:35].any()
    assert case.is_away.sum() == 64 * 64 - 22 * 22


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 2.0), (1.5, 4.25), (2.0, 7.0)])
def test_what_is_kept_of_a_print_decides_as_another_look_would(scale, shift):
    photo = crop_sample("astronaut", 288)  # it has a smaller copy
    torch.manual_seed(3)
    generator = DetectFill(DetectFillConfig((8, 12, 16), (1,), (8, 8, 8, 8), (1,), detector_context=2)).eval()
    generator.detector.head.weight.data.mul_(20.0)
    kept = KeptPrint(place(with_calibration(generator, KEPT_SCALE, KEPT_SHIFT), CPU), photo).opacities(scale, shift)
    seen = restore_photo(photo_of(photo), place(with_calibration(generator, scale, shift), CPU)).mask
    assert 0.05 < seen.mean() < 0.95
    assert ((kept > 0) == seen).mean() > 0.95


def test_trying_shifts_leaves_the_generator_as_it_was():
    generator = generator_that_says(7.0)
    shifted = with_calibration(generator, 1.5, 2.5)
    assert (generator.config.detector_scale, generator.config.detector_shift) == (1.0, 1.0)
    assert (shifted.config.detector_scale, shifted.config.detector_shift) == (1.5, 2.5)
    assert weights_digest(generator) != weights_digest(shifted)


@pytest.fixture
def run(bank, tmp_path):
    trainer = Trainer(DETECT_FILL, make_source(DETECT_FILL, bank), settings_for(tmp_path / "run"))
    trainer.generator.detector.head.bias.data.fill_(6.0)
    trainer.average.detector.head.bias.data.fill_(6.0)
    for network in (trainer.generator, trainer.average):
        network.detector.head.weight.data.zero_()
    trainer.save()
    return tmp_path / "run"


def test_a_run_keeps_its_calibration(run, bank, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "CASES_TO_CALIBRATE", 1)
    monkeypatch.setattr(jobs, "OVERLAYS_TO_CALIBRATE", 1)
    names = [*names_for("validation", 20), *names_for("evaluation", 1)]
    calibrate_run(write_photos(tmp_path / "photos", names, side_px=32), run, CPU)
    generator, _ = generator_from_checkpoint(run)
    # it says 6 everywhere, too little then to be damage
    assert 3.0 < generator.config.detector_shift / generator.config.detector_scale <= 6.0
    assert generator.required_evidence == REQUIRED_EVIDENCE
    trainer = Trainer(DETECT_FILL, make_source(DETECT_FILL, bank), settings_for(run))
    trainer.resume()
    trainer.train()
    assert generator_from_checkpoint(run)[0].config == generator.config


def test_with_few_photographs_it_stays_as_it_is(run, tmp_path, capsys):
    before = load_checkpoint(run)
    photos = write_photos(tmp_path / "photos", [*names_for("validation", 19), *names_for("evaluation", 1)], side_px=32)
    calibrate_run(photos, run, CPU)
    assert "19 photographs to calibrate on, fewer than 20" in " ".join(capsys.readouterr().err.split())
    assert load_checkpoint(run)["calibration"] == before["calibration"] == {}


def test_a_generator_without_a_detector_has_nothing_to_calibrate(tmp_path, capsys, bank):
    Trainer(PIX2PIX, make_source(PIX2PIX, bank), settings_for(tmp_path)).save()
    before = load_checkpoint(tmp_path)
    calibrate_run(tmp_path, tmp_path, CPU)
    assert "no detector" in " ".join(capsys.readouterr().err.split())
    assert load_checkpoint(tmp_path)["calibration"] == before["calibration"] == {}
