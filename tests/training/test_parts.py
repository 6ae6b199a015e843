"""A part of one run's generator in another's."""

import dataclasses
import json

import pytest
import torch

from restoration.errors import CheckpointError, InvalidOption
from training.parts import PARTS_TAKEN, take_part
from training.trainer import Trainer, generator_from_checkpoint

from .small_recipes import DENOISE, DETECT_FILL, PIX2PIX, make_source, settings_for


@pytest.fixture(scope="module")
def runs(bank, tmp_path_factory):
    """Folders of runs that have saved a checkpoint, untrained, of different seeds."""
    folders = {}
    for seed, recipe in enumerate((DETECT_FILL, DENOISE, PIX2PIX)):
        folders[recipe.name] = tmp_path_factory.mktemp(recipe.name)
        trainer = Trainer(recipe, make_source(recipe, bank), settings_for(folders[recipe.name]))
        torch.manual_seed(seed)
        for weight in [*trainer.generator.parameters(), *trainer.average.parameters()]:
            weight.data.normal_()
        trainer.calibration = {"detector_shift": float(seed), "required_evidence": 10.0 + seed}
        trainer.save()
    (folders["detect-fill"] / "run.json").write_text(json.dumps({"device": "an abacus"}))
    return folders


def weights_of(folder, part):
    generator = generator_from_checkpoint(folder)[0]
    return {name: weight for name, weight in generator.state_dict().items() if name.startswith(f"{part}.")}


def equal(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def test_a_part_that_a_run_has_not_comes_from_another_and_the_rest_stays(runs, tmp_path):
    take_part("denoiser", runs["denoise"], runs["detect-fill"], tmp_path / "both")
    generator, state = generator_from_checkpoint(tmp_path / "both")
    assert generator.has_denoiser
    assert equal(weights_of(tmp_path / "both", "denoiser"), weights_of(runs["denoise"], "denoiser"))
    for part in ("detector", "filler"):
        assert equal(weights_of(tmp_path / "both", part), weights_of(runs["detect-fill"], part))
    assert (generator.config.detector_shift, generator.config.required_evidence) == (0.0, 10.0)
    assert state["recipe"]["name"] == "detect-fill + denoiser"
    facts = json.loads((tmp_path / "both" / "run.json").read_text())
    assert facts == {"device": "an abacus", PARTS_TAKEN: {"denoiser": "recipe denoise, 0 steps, 0 minutes"}}


def test_a_detector_brings_its_calibration_along(runs, tmp_path):
    take_part("detector", runs["denoise"], runs["detect-fill"], tmp_path / "both")
    config = generator_from_checkpoint(tmp_path / "both")[0].config
    assert (config.detector_shift, config.required_evidence) == (1.0, 11.0)
    assert equal(weights_of(tmp_path / "both", "detector"), weights_of(runs["denoise"], "detector"))


@pytest.fixture(scope="module")
def runs_of_both_kinds(bank, tmp_path_factory):
    """Two runs with a verifier, `one` and `two`, and one without, `none`; each calibrated in its own way."""
    config = dataclasses.replace(DETECT_FILL.generator, detector_channels=(8, 8, 8), detector_context=2)
    folders = {}
    for shift, name in enumerate(("one", "two", "none"), 3):
        channels = () if name == "none" else (8, 8, 8)
        generator = dataclasses.replace(config, verifier_channels=channels, verifier_dilations=(1,))
        recipe = dataclasses.replace(DETECT_FILL, generator=generator)
        folders[name] = tmp_path_factory.mktemp(name)
        trainer = Trainer(recipe, make_source(recipe, bank), settings_for(folders[name]))
        trainer.calibration = {"detector_shift": shift, "verifier_shift": 10.0 + shift, "required_evidence": 5.5}
        trainer.save()
    return folders


def test_a_verifier_comes_with_its_calibration_and_leaves_the_detector_s(runs_of_both_kinds, tmp_path):
    take_part("verifier", runs_of_both_kinds["one"], runs_of_both_kinds["two"], tmp_path / "both")
    config = generator_from_checkpoint(tmp_path / "both")[0].config
    assert (config.detector_shift, config.verifier_shift, config.required_evidence) == (4.0, 13.0, 5.5)
    assert equal(weights_of(tmp_path / "both", "verifier"), weights_of(runs_of_both_kinds["one"], "verifier"))


@pytest.mark.parametrize(("part", "donor", "run"), [("verifier", "one", "none"), ("detector", "one", "none")])
def test_what_a_detector_is_sure_of_changes_with_a_verifier_beside_it(runs_of_both_kinds, tmp_path, part, donor, run):
    take_part(part, runs_of_both_kinds[donor], runs_of_both_kinds[run], tmp_path / "both")
    config = generator_from_checkpoint(tmp_path / "both")[0].config
    assert config.required_evidence == DETECT_FILL.generator.required_evidence == 12.0


def test_parts_that_do_not_fit_are_refused_before_anything_is_written(runs, runs_of_both_kinds, tmp_path):
    with pytest.raises(CheckpointError, match="do not make one generator"):
        take_part("verifier", runs_of_both_kinds["one"], runs["detect-fill"], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_what_was_joined_is_not_trained_on(runs, bank, tmp_path):
    take_part("denoiser", runs["denoise"], runs["detect-fill"], tmp_path / "both")
    with pytest.raises(CheckpointError, match="of another recipe"):
        Trainer(DENOISE, make_source(DENOISE, bank), settings_for(tmp_path / "both")).resume()


def test_what_cannot_be_joined_is_refused(runs, tmp_path):
    with pytest.raises(CheckpointError, match="has no denoiser to give"):
        take_part("denoiser", runs["detect-fill"], runs["denoise"], tmp_path / "both")
    with pytest.raises(CheckpointError, match="has no parts"):
        take_part("denoiser", runs["pix2pix"], runs["denoise"], tmp_path / "both")
    with pytest.raises(InvalidOption, match="holds a checkpoint already"):
        take_part("denoiser", runs["denoise"], runs["detect-fill"], runs["denoise"])
    assert not (tmp_path / "both").exists()
