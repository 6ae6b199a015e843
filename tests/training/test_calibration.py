"""The detector's shift is chosen so that clean photographs stay clean."""

import pytest
import torch

from restoration.generator import DetectFill, DetectFillConfig
from restoration.restorer import restore_photo
from training import calibration
from training.calibration import SHIFTS, calibrate, with_shift
from training.cases import photo_of
from training.checkpoint import load_checkpoint, save_checkpoint
from training.evaluation import place
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


def is_changed(generator: DetectFill, shift: float) -> bool:
    return bool(restore_photo(photo_of(PHOTOS[0]), place(with_shift(generator, shift), CPU)).mask.any())


def test_the_shift_is_the_smallest_with_which_clean_photos_stay_clean():
    generator = generator_that_says(7.0)
    shift = calibrate(generator, PHOTOS, CPU)
    assert 0.0 < shift < 7.0
    assert not is_changed(generator, shift)
    assert is_changed(generator, shift - 0.25)
    assert calibrate(generator_that_says(-5.0), PHOTOS, CPU) == SHIFTS[0]


def test_a_detector_that_no_shift_can_calm_gets_the_largest():
    assert calibrate(generator_that_says(40.0), PHOTOS, CPU) == SHIFTS[-1]


def test_trying_shifts_leaves_the_generator_as_it_was():
    generator = generator_that_says(7.0)
    shifted = with_shift(generator, 2.5)
    assert (generator.config.detector_shift, shifted.config.detector_shift) == (1.0, 2.5)
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


def test_a_run_keeps_its_calibration_until_it_trains_on(run, bank, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "UNCHANGED_SHARE", 1.0)
    photos = write_photos(tmp_path / "photos", [*names_for("validation", 20), *names_for("evaluation", 1)], side_px=32)
    calibrate_run(photos, run, CPU)
    assert 0.0 < generator_from_checkpoint(run)[0].config.detector_shift < 6.0
    trainer = Trainer(DETECT_FILL, make_source(DETECT_FILL, bank), settings_for(run))
    trainer.resume()
    trainer.train()
    assert generator_from_checkpoint(run)[0].config.detector_shift == DETECT_FILL.generator.detector_shift


def test_with_few_photographs_it_stays_as_it_is(run, tmp_path, capsys):
    before = load_checkpoint(run)
    photos = write_photos(tmp_path / "photos", [*names_for("validation", 19), *names_for("evaluation", 1)], side_px=32)
    calibrate_run(photos, run, CPU)
    assert "19 photographs to calibrate on, fewer than 20" in " ".join(capsys.readouterr().err.split())
    assert load_checkpoint(run).keys() == before.keys()


def test_a_generator_without_a_detector_has_nothing_to_calibrate(tmp_path, capsys, bank):
    Trainer(PIX2PIX, make_source(PIX2PIX, bank), settings_for(tmp_path)).save()
    before = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, before)
    calibrate_run(tmp_path, tmp_path, CPU)
    assert "no detector" in capsys.readouterr().err
    assert load_checkpoint(tmp_path).keys() == before.keys()
