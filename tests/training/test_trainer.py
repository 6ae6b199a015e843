"""Real steps on small networks: learning, stopping, going on exactly."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from restoration.errors import CheckpointError, InvalidOption, LossNotFinite
from training.checkpoint import NAME, load_checkpoint
from training.pairs import BatchShape, batch_seed, make_batch
from training.recipes import Phase
from training.steps import run_step
from training.trainer import Trainer, generator_from_checkpoint, learning_rate, spans

from .small_recipes import CPU, DETECT_FILL, LOOKED_AT, PIX2PIX, RECIPES, Interrupted, make_source, settings_for


def terminate(pairs):
    """What `kill` does while a batch is made; the step is still trained."""
    os.kill(os.getpid(), signal.SIGTERM)
    return pairs


def spoil(pairs):
    return dataclasses.replace(pairs, clean=pairs.clean * float("nan"))


def differences(first, second, path: str = "") -> Iterator[str]:
    """Where two checkpoints differ, bit by bit."""
    if isinstance(first, torch.Tensor):
        if not (first.dtype == second.dtype and torch.equal(first, second)):
            yield path
    elif isinstance(first, dict):
        if first.keys() != second.keys():
            yield f"{path}: keys"
        for key in first.keys() & second.keys():
            yield from differences(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, list | tuple):
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from differences(a, b, f"{path}/{index}")
    elif first != second:
        yield path


@pytest.fixture(params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


@pytest.fixture
def train(bank, tmp_path):
    """Trains a recipe in the folder of that name, and returns the trainer."""

    def train(recipe, folder="run", source=None, resume=False, **settings) -> Trainer:
        trainer = Trainer(recipe, source or make_source(recipe, bank), settings_for(tmp_path / folder, **settings))
        if resume:
            trainer.resume()
        trainer.finished = trainer.train()
        return trainer

    return train


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", ["detector", "filler", "pix2pix"])
def test_some_steps_make_the_loss_smaller(train, bank, tmp_path, trains):
    recipe = PIX2PIX if trains == "pix2pix" else DETECT_FILL
    phase = {
        "detector": Phase("detector", 60, num_crops=8, crop_px=32, learning_rate=4e-3),
        "filler": Phase("filler", 60, num_crops=8, crop_px=32, learning_rate=4e-3),
        "pix2pix": Phase("pix2pix", 30, num_crops=2, crop_px=256, learning_rate=2e-3, adversarial=1.0),
    }[trains]
    recipe = dataclasses.replace(recipe, phases=(phase,))
    pairs = make_batch(
        make_source(recipe, bank), 10_000, BatchShape(16 if phase.crop_px == 32 else 2, phase.crop_px), CPU
    )

    def measure(trainer: Trainer) -> float:
        shown = {"detector": "entropy", "filler": "l1_inside", "pix2pix": "l1"}[trains]
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            losses = run_step(trainer.generator, trainer.discriminator, pairs, phase, recipe, rng)
        return float(losses.shown[shown])

    untrained = Trainer(recipe, make_source(recipe, bank), settings_for(tmp_path))
    assert measure(train(recipe)) < 0.8 * measure(untrained)


def test_only_the_phase_s_part_is_trained_and_averaged(train, tmp_path):
    detector_only = dataclasses.replace(DETECT_FILL, phases=DETECT_FILL.phases[:1])
    untrained = Trainer(detector_only, None, settings_for(tmp_path))
    trainer = train(detector_only)
    before = untrained.generator.state_dict()
    for weights in (trainer.generator.state_dict(), trainer.average.state_dict()):
        changed = {name.split(".")[0] for name in weights if not torch.equal(weights[name], before[name])}
        assert changed == {"detector"}
    assert list(differences(trainer.discriminator.state_dict(), untrained.discriminator.state_dict())) == []


def test_the_average_follows_the_weights_with_its_decay(train):
    first = dataclasses.replace(DETECT_FILL, phases=(dataclasses.replace(DETECT_FILL.phases[0], num_steps=1),))
    start = Trainer(first, None, settings_for(None)).generator.detector.head.weight.detach()
    trainer = train(first)
    after, average = trainer.generator.detector.head.weight, trainer.average.detector.head.weight
    torch.testing.assert_close(average, 0.1 * start + 0.9 * after)  # (1 + 0) / (10 + 0) at first


def test_without_a_decay_the_average_is_the_weights_themselves(train):
    trainer = train(PIX2PIX)
    assert list(differences(trainer.generator.state_dict(), trainer.average.state_dict())) == []


def test_the_learning_rate_warms_up_and_decays_to_nothing():
    phase = Phase("filler", 100, num_crops=1, crop_px=32, learning_rate=1.0, warm_up_steps=9, decays=True)
    rates = [learning_rate(phase, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], rel=0.01)
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001
    plain = dataclasses.replace(phase, warm_up_steps=0, decays=False)
    assert {learning_rate(plain, step) for step in range(100)} == {1.0}


def test_phases_follow_one_another():
    assert [(phase.trains, first, end) for phase, first, end in spans(DETECT_FILL)] == [
        ("detector", 0, 2),
        ("filler", 2, 4),
        ("filler", 4, 6),
    ]


# --- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "stopped_after"), [(DETECT_FILL, 1), (DETECT_FILL, 3), (DETECT_FILL, 5), (PIX2PIX, 3)]
)
def test_a_resumed_run_ends_exactly_as_one_in_a_single_go(train, bank, tmp_path, recipe, stopped_after):
    """Networks, optimisers, average, random state: every bit, dropout and spectral norms included."""
    train(recipe, "single")
    source = Interrupted(make_source(recipe, bank), at_group=stopped_after - 1, happens=terminate)
    stopped = train(recipe, "stopped", source)
    assert not stopped.finished
    assert stopped.step == stopped_after
    torch.manual_seed(123)  # the second process has another past
    resumed = train(recipe, "stopped", resume=True)
    assert resumed.finished
    single, stopped = (load_checkpoint(tmp_path / folder) for folder in ("single", "stopped"))
    assert single["step"] == 6
    assert list(differences(single | {"trained_seconds": 0}, stopped | {"trained_seconds": 0})) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_change_nothing_of_a_run(train, tmp_path):
    """Dropout included: its random numbers come from the state that a loader would take its workers' seeds from."""
    train(PIX2PIX, "here")
    train(PIX2PIX, "ahead", num_workers=1)
    here, ahead = (load_checkpoint(tmp_path / folder) for folder in ("here", "ahead"))
    assert list(differences(here | {"trained_seconds": 0}, ahead | {"trained_seconds": 0})) == []


def test_cudnn_is_on_while_training(train, bank):
    """What sets its flags for a while turns it off unless told otherwise; a GPU's steps then take ten times as long."""
    seen = []

    def look(pairs):
        seen.append(torch.backends.cudnn.enabled)
        return pairs

    assert train(DETECT_FILL, source=Interrupted(make_source(DETECT_FILL, bank), at_group=2, happens=look)).finished
    assert seen == [True]


def test_sigterm_is_taken_while_training_only(train, bank):
    before = signal.getsignal(signal.SIGTERM)
    source = Interrupted(make_source(DETECT_FILL, bank), at_group=0, happens=terminate)
    assert not train(DETECT_FILL, source=source).finished
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_is_stopped_in_its_last_step_is_finished(train, bank):
    source = Interrupted(make_source(DETECT_FILL, bank), at_group=5, happens=terminate)
    assert train(DETECT_FILL, source=source).finished


def test_the_time_limit_stops_with_a_checkpoint_and_time_adds_up(train, tmp_path):
    stopped = train(DETECT_FILL, max_seconds=0.0)
    assert not stopped.finished
    assert load_checkpoint(tmp_path / "run")["step"] == 1
    resumed = train(DETECT_FILL, resume=True)
    assert resumed.trained_seconds > stopped.trained_seconds > 0.0


def test_a_finished_run_that_is_resumed_does_nothing(train, tmp_path):
    train(DETECT_FILL)
    before = load_checkpoint(tmp_path / "run")
    assert train(DETECT_FILL, resume=True).finished
    assert list(differences(before, load_checkpoint(tmp_path / "run"))) == []


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint_whole(train, bank, tmp_path, recipe):
    source = Interrupted(make_source(recipe, bank), at_group=3, happens=spoil)
    with pytest.raises(LossNotFinite, match=rf"step 3: .* is not finite \(batch seed {batch_seed(recipe.seed, 3)}\)"):
        train(recipe, source=source, checkpoint_every_steps=2)
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 2
    weights = [*state["generator"].values(), *state["average"].values(), *state["discriminator"].values()]
    assert all(weight.isfinite().all() for weight in weights)
    assert train(recipe, resume=True).finished


def test_a_checkpoint_of_another_recipe_is_refused_and_says_what_differs(train, bank, tmp_path):
    train(dataclasses.replace(DETECT_FILL, phases=DETECT_FILL.phases[:1]))
    longer = dataclasses.replace(DETECT_FILL, seed=5)
    with pytest.raises(CheckpointError, match="of another recipe: phases, seed differ"):
        train(longer, resume=True)
    with pytest.raises(CheckpointError, match="name, generator"):
        train(PIX2PIX, resume=True)


def test_a_half_written_checkpoint_is_not_resumed(train, tmp_path):
    train(dataclasses.replace(DETECT_FILL, phases=DETECT_FILL.phases[:1]))
    path = tmp_path / "run" / NAME
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(DETECT_FILL, resume=True)


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_draws_curves_of_its_losses(train, tmp_path):
    train(DETECT_FILL, log_every_steps=1)
    curves = EventAccumulator(str(tmp_path / "run" / "curves"))
    curves.Reload()
    assert {"detector/entropy", "detector/recall", "filler/l1_inside", "filler/discriminator"} <= set(
        curves.Tags()["scalars"]
    )
    assert [point.step for point in curves.Scalars("filler/l1_inside")] == [3, 4, 5, 6]


def test_a_run_leaves_sample_grids_of_the_same_pairs(train, tmp_path):
    train(DETECT_FILL, sample_every_steps=1)
    grids = sorted((tmp_path / "run" / "samples").iterdir())
    assert [grid.name for grid in grids] == [f"step_{step:07}.png" for step in range(1, 7)]
    with Image.open(grids[-2]) as before, Image.open(grids[-1]) as last:  # of one phase, so that crops are of one size
        assert before.size == last.size
        first_column = (0, 16, last.width // 6 - 4, last.height)
        assert before.crop(first_column).tobytes() == last.crop(first_column).tobytes()
        assert before.tobytes() != last.tobytes()


def test_sample_grids_change_nothing_of_a_run(train, tmp_path):
    train(PIX2PIX, "with", sample_every_steps=4)
    train(PIX2PIX, "without")
    with_grids, without = (load_checkpoint(tmp_path / folder) for folder in ("with", "without"))
    assert list(differences(with_grids | {"trained_seconds": 0}, without | {"trained_seconds": 0})) == []


def test_what_is_published_of_a_run_is_its_average_ready_to_restore(train, tmp_path, recipe):
    trainer = train(recipe)
    generator, state = generator_from_checkpoint(tmp_path / "run")
    assert generator.architecture == recipe.name
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert list(differences(generator.state_dict(), trainer.average.state_dict())) == []
    assert state["step"] == 6


def test_a_perceptual_loss_without_its_weights_is_refused_at_once(bank, tmp_path):
    recipe = dataclasses.replace(DETECT_FILL, phases=(dataclasses.replace(DETECT_FILL.phases[1], perceptual=0.5),))
    with pytest.raises(InvalidOption, match="--perceptual-weights"):
        Trainer(recipe, make_source(recipe, bank), settings_for(tmp_path))


@pytest.mark.filterwarnings("ignore")  # torch warns itself of what it does while it compiles
def test_compiled_networks_learn_what_launched_ones_do(train, vgg_weights, monkeypatch):
    """Traced, with gradients made ahead, but without generated code: that needs a compiler, and minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    launched, compiled = (
        train(LOOKED_AT, folder=str(compiles), compiles=compiles, perceptual_weights=vgg_weights)
        for compiles in (False, True)
    )
    assert compiled.step == launched.step == LOOKED_AT.num_steps
    for name, weight in launched.generator.state_dict().items():
        torch.testing.assert_close(compiled.generator.state_dict()[name], weight, atol=1e-3, rtol=0.02, msg=name)
