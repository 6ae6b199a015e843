"""The verifier: it starts as the detector that there is, is trained alone, and what it says decides."""

import dataclasses

import numpy as np
import pytest
import torch

from restoration.generator import DetectFill
from restoration.restorer import restore_photo
from training.calibration import SHIFTS, KeptPrint, calibrate, find_suspect_shift, for_keeping, with_calibration
from training.cases import photo_of
from training.evaluation import place
from training.pairs import BatchShape, make_batch
from training.samples import crop_sample
from training.steps import run_step
from training.trainer import Trainer, build_generator_for, fits_in, put_in_corner

from .small_recipes import CPU, DETECT_FILL, make_source, settings_for

CONFIG = dataclasses.replace(
    DETECT_FILL.generator, detector_channels=(8, 12, 16), detector_context=2, verifier_channels=(12, 16, 24)
)
PHASE = dataclasses.replace(DETECT_FILL.phases[0], trains="verifier", num_scales=2, untold_share=0.0)
RECIPE = dataclasses.replace(
    DETECT_FILL, generator=dataclasses.replace(CONFIG, verifier_dilations=(1,)), phases=(PHASE,)
)
UNVERIFIED = dataclasses.replace(RECIPE.generator, verifier_channels=(), detector_shift=1.25)
TILES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def generator_of(config=RECIPE.generator) -> DetectFill:
    torch.manual_seed(0)
    generator = build_generator_for(dataclasses.replace(RECIPE, generator=config)).eval()
    if config.detector_context:
        torch.nn.init.normal_(generator.detector.context_stem.weight)
    return generator


def test_a_larger_network_computes_what_the_one_in_its_corner_does():
    generator = generator_of()
    put_in_corner(generator.detector, generator.verifier)
    logits, told = generator.detect_logits(TILES)
    torch.testing.assert_close(generator.verify_logits(TILES), (logits, told), atol=1e-4, rtol=1e-4)
    again = torch.nn.functional.avg_pool2d(told, 2)
    torch.testing.assert_close(
        generator.verify_logits(TILES, again), generator.detect_logits(TILES, again), atol=1e-4, rtol=1e-4
    )


def test_a_network_with_fewer_layers_or_larger_ones_has_no_place_in_a_corner():
    generator = generator_of()
    assert fits_in(generator.detector, generator.verifier)
    assert not fits_in(generator.verifier, generator.detector)
    assert not fits_in(generator_of(DETECT_FILL.generator).detector, generator.verifier)


def test_a_run_that_starts_from_a_release_without_a_verifier_makes_one_of_its_detector(bank, tmp_path):
    release = generator_of(UNVERIFIED)
    trainer = Trainer(RECIPE, make_source(RECIPE, bank), settings_for(tmp_path))
    trainer.take_weights(release)
    for network in (trainer.generator, trainer.average):
        expected = release.detect_logits(TILES)
        torch.testing.assert_close(network.verify_logits(TILES), expected, atol=1e-4, rtol=1e-4)
    assert trainer.calibration["verifier_shift"] == trainer.calibration["detector_shift"] == 1.25
    assert trainer.calibration["verifier_scale"] == trainer.calibration["detector_scale"]


def test_a_release_s_own_verifier_is_taken_as_it_is(bank, tmp_path):
    release = generator_of()
    trainer = Trainer(RECIPE, make_source(RECIPE, bank), settings_for(tmp_path))
    trainer.take_weights(release)
    torch.testing.assert_close(trainer.generator.verify_logits(TILES), release.verify_logits(TILES))


def test_a_filler_that_is_shown_the_smooth_fill_starts_as_one_that_was_not(bank, tmp_path):
    keeping = dataclasses.replace(RECIPE.generator, filler_keeps=True)
    release = generator_of(keeping)
    recipe = dataclasses.replace(RECIPE, generator=dataclasses.replace(keeping, filler_prefills=True))
    trainer = Trainer(recipe, make_source(recipe, bank), settings_for(tmp_path))
    trainer.take_weights(release)
    mask = (TILES[:, :1] > 0.5).float()
    for network in (trainer.generator, trainer.average):
        torch.nn.init.constant_(network.filler.take_head.bias, -50.0)
        torch.testing.assert_close(network.fill(TILES, mask), release.fill(TILES, mask))


def test_its_phase_moves_it_alone(bank):
    generator = generator_of()
    pairs = make_batch(make_source(RECIPE, bank), 1, BatchShape(PHASE.num_crops, PHASE.crop_px), CPU)
    judge = torch.nn.Identity()
    run_step(generator, judge, pairs, PHASE, RECIPE, torch.Generator().manual_seed(0)).generator.backward()
    assert all(parameter.grad is not None for parameter in generator.verifier.parameters())
    assert all(parameter.grad is None for parameter in generator.detector.parameters())
    assert all(parameter.grad is None for parameter in generator.filler.parameters())


@pytest.mark.parametrize(("scale", "shift", "suspect_shift"), [(1.5, 6.5, 3.0), (2.0, 8.0, 3.5)])
def test_what_is_kept_of_a_print_decides_as_another_look_would(scale, shift, suspect_shift):
    photo = crop_sample("astronaut", 288)  # it has a smaller copy
    generator = generator_of()
    for network in (generator.detector, generator.verifier):
        network.head.weight.data.mul_(3.0)
    kept = KeptPrint(place(for_keeping(generator), CPU), photo).opacities(scale, shift, suspect_shift)
    served = with_calibration(generator, scale, shift, suspect_shift)
    seen = restore_photo(photo_of(photo), place(served, CPU)).mask
    assert 0.02 < seen.mean() < 0.98
    assert ((kept > 0) == seen).mean() > 0.95
    assert served.config.detector_shift == suspect_shift
    assert served.config.verifier_shift == shift


def test_the_verifier_is_asked_for_no_more_of_clean_prints_than_the_work_allows(monkeypatch):
    photos = [crop_sample(name, 160) for name in ("astronaut", "coffee", "chelsea")]
    generator = generator_of()
    generator.detector.head.weight.data.mul_(3.0)
    prints = [KeptPrint(place(for_keeping(generator), CPU), photo) for photo in photos]

    def share(shift: float) -> float:
        return float(np.mean([kept.verified_share(shift) for kept in prints]))

    monkeypatch.setattr("training.calibration.VERIFIED_SHARE", 0.3)
    shift = find_suspect_shift(prints)
    assert 0.0 < shift < SHIFTS[-1]
    assert share(shift) <= 0.3 < share(shift - 0.25)
    found = calibrate(generator, photos, [], CPU, unchanged_share=1.0)
    assert found.suspect_shift is not None
    assert share(found.suspect_shift) <= 0.3
