"""The recipes' figures; the original's are the table that it was published with."""

import dataclasses

import pytest

from restoration.pix2pix import Pix2PixConfig
from training.discriminator import PatchGANConfig
from training.drawing import FAMILIES
from training.recipes import RECIPES, detect_fill_recipe, pix2pix_recipe, scale_steps
from training.trainer import build_generator_for, recipe_record

from .small_recipes import DETECT_FILL, PIX2PIX


def test_the_original_s_figures_are_the_defaults_of_its_recipe():
    recipe = pix2pix_recipe(num_photos=8000)
    (phase,) = recipe.phases
    assert (phase.num_crops, phase.crop_px, phase.num_steps) == (8, 256, 50 * 1000)
    assert (phase.learning_rate, recipe.betas) == (2e-4, (0.5, 0.999))
    assert (phase.adversarial, phase.feature_matching, recipe.l1) == (1.0, 0.0, 10.0)
    assert (recipe.generator, recipe.discriminator) == (Pix2PixConfig(64, 0.5), PatchGANConfig((64, 128, 256, 512)))
    assert (recipe.ema_decay, recipe.max_gradient_norm, phase.warm_up_steps, phase.decays) == (0.0, None, 0, False)


def test_the_original_trains_a_step_an_epoch_even_on_a_few_photos():
    assert pix2pix_recipe(num_photos=3).num_steps == 50


def test_ours_trains_the_detector_first_as_it_decides():
    recipe = detect_fill_recipe(num_photos=100)
    assert recipe.phases[0].trains == "detector"
    assert {phase.trains for phase in recipe.phases} == {"detector", "filler", "denoiser"}
    first_judged = next(phase for phase in recipe.phases if phase.adversarial)
    assert any(phase.trains == "filler" for phase in recipe.phases[: recipe.phases.index(first_judged)])


def test_the_denoiser_is_trained_alone_by_a_recipe_of_its_own_with_the_same_networks():
    recipe = RECIPES["denoise"](100)
    assert {phase.trains for phase in recipe.phases} == {"denoiser"}
    assert recipe.generator == detect_fill_recipe(100).generator
    assert not RECIPES["fine-tune"](100).generator.denoiser_channels  # it would publish an untrained one


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_itself_and_damage_that_there_is(name):
    recipe = RECIPES[name](100)
    assert recipe.name == name
    for damage in filter(None, (recipe.damage, *(phase.damage for phase in recipe.phases))):
        assert set(damage.families) | damage.family_weights.keys() <= set(FAMILIES)
        assert sum(damage.num_layers_shares) == pytest.approx(1.0)
        assert 0.1 <= damage.num_layers_shares[0] <= 0.5  # clean samples keep the detector honest


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_factor_scales_every_phase(factor):
    scaled = scale_steps(detect_fill_recipe(100), factor)
    for phase, original in zip(scaled.phases, detect_fill_recipe(100).phases, strict=True):
        assert phase.num_steps == original.num_steps * factor
        assert dataclasses.replace(phase, num_steps=original.num_steps) == original


def test_no_factor_leaves_a_phase_without_a_step():
    assert [phase.num_steps for phase in scale_steps(detect_fill_recipe(100), 0.0).phases] == [1] * len(
        detect_fill_recipe(100).phases
    )


@pytest.mark.parametrize("recipe", [DETECT_FILL, PIX2PIX], ids=lambda recipe: recipe.name)
def test_a_recipe_builds_its_generator_and_is_recorded_in_plain_values(recipe):
    assert build_generator_for(recipe).architecture == recipe.name
    record = recipe_record(recipe)
    assert record["phases"][0]["num_steps"] == recipe.phases[0].num_steps
    assert isinstance(record["betas"], list)
