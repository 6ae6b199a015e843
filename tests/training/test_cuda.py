"""Training on a GPU: pairs that are composed ahead are those of their steps, and a run learns, stops and goes on."""

import dataclasses

import numpy as np
import pytest
import torch

from restoration.errors import LossNotFinite
from training import jobs
from training.damage import Pairs
from training.jobs import Data
from training.pairs import BatchShape, DamagedOnDevice, DamagedOnTheFly, iterate_batches, make_batch
from training.photos import CropConfig, ResidentPhotos, draw_places
from training.recipes import Phase
from training.samples import crop_sample
from training.steps import run_step
from training.trainer import Trainer

from .small_recipes import DETECT_FILL, LOOKED_AT, Interrupted, make_resident_source, make_source, settings_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
CUDA = torch.device("cuda", 0)
SHAPE = BatchShape(4, 64)


def on_cuda(folder, **changes):
    return dataclasses.replace(settings_for(folder, **changes), device=CUDA)


@pytest.fixture(params=["cut on the processor", "three steps at once, cut on the device"])
def source(request, bank):
    if request.param == "cut on the processor":
        return make_source(DETECT_FILL, bank.to(CUDA))
    return make_resident_source(DETECT_FILL, bank, CUDA)


def test_what_is_composed_ahead_is_what_the_step_would_make(source):
    ahead = list(iterate_batches(source, range(5, 9), SHAPE, CUDA, num_workers=0))
    for step, pairs in zip(range(5, 9), ahead, strict=True):
        at_once = make_batch(source, step, SHAPE, CUDA)
        assert all(torch.equal(each, vars(at_once)[name]) for name, each in vars(pairs).items())


def test_photos_lie_on_the_device_unless_they_are_taken_whole(photo_folder, bank, monkeypatch):
    monkeypatch.setattr(jobs, "build_bank", lambda *_, **__: bank)
    resident = Data(photo_folder, None, None).source(DETECT_FILL, CUDA)
    assert isinstance(resident, DamagedOnDevice)
    assert resident.photos.pixels.is_cuda
    assert resident.batches_at_once > 1
    whole = dataclasses.replace(DETECT_FILL, crops=CropConfig(is_whole=True))
    assert isinstance(Data(photo_folder, None, None).source(whole, CUDA), DamagedOnTheFly)


def test_who_stops_early_waits_for_no_batch(source):
    batches = iterate_batches(source, range(10**6), SHAPE, CUDA, num_workers=0)
    next(batches)
    batches.close()


def test_what_fails_while_it_is_composed_fails_the_run(bank, tmp_path):
    def fail(pairs: Pairs) -> Pairs:
        raise ZeroDivisionError

    source = Interrupted(make_source(DETECT_FILL, bank.to(CUDA)), 3, fail)
    with pytest.raises(ZeroDivisionError):
        Trainer(DETECT_FILL, source, on_cuda(tmp_path)).train()
    assert 3 in source.asked_for


def test_the_loss_falls(bank, tmp_path):
    phase = Phase("detector", 80, num_crops=16, crop_px=32, learning_rate=4e-3)
    recipe = dataclasses.replace(DETECT_FILL, phases=(phase,))
    source = make_source(recipe, bank.to(CUDA))
    pairs = make_batch(source, 10_000, BatchShape(64, 32), CUDA)

    def entropy(trainer: Trainer) -> float:
        rng = torch.Generator(CUDA).manual_seed(0)
        with torch.no_grad():
            return float(run_step(trainer.generator, trainer.discriminator, pairs, phase, recipe, rng).shown["entropy"])

    trainer = Trainer(recipe, source, on_cuda(tmp_path))
    before = entropy(trainer)
    assert trainer.train()
    assert entropy(trainer) < 0.8 * before


@pytest.mark.filterwarnings("ignore")  # torch warns itself of what it does while it compiles
def test_compiled_networks_learn_what_launched_ones_do(bank, tmp_path, vgg_weights):
    weights = {}
    for compiles in (False, True):
        settings = on_cuda(tmp_path / str(compiles), compiles=compiles, perceptual_weights=vgg_weights)
        trainer = Trainer(LOOKED_AT, make_source(LOOKED_AT, bank.to(CUDA)), settings)
        assert trainer.train()
        weights[compiles] = torch.cat([weight.flatten().float() for weight in trainer.generator.state_dict().values()])
    assert (weights[True] - weights[False]).norm() < 0.05 * weights[False].norm()


def test_crops_are_cut_on_the_device_as_on_the_cpu():
    photos = [crop_sample(name, 200) for name in ("astronaut", "coffee")]
    places = draw_places(6, np.random.default_rng(0))
    on_cpu, on_device = (
        ResidentPhotos.of(photos, device).cut(places.to(device), 64, CropConfig()).cpu()
        for device in (torch.device("cpu"), CUDA)
    )
    torch.testing.assert_close(on_device, on_cpu, atol=2e-3, rtol=0.0)


def test_a_step_that_is_not_finite_is_named_though_others_have_followed(bank, tmp_path):
    def spoil(pairs: Pairs) -> Pairs:
        return dataclasses.replace(pairs, damaged=pairs.damaged * torch.nan)

    source = Interrupted(make_source(DETECT_FILL, bank.to(CUDA)), 1, spoil)
    with pytest.raises(LossNotFinite, match="step 1: "):
        Trainer(DETECT_FILL, source, on_cuda(tmp_path)).train()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_that_was_stopped_goes_on(source, tmp_path):
    assert not Trainer(DETECT_FILL, source, on_cuda(tmp_path, max_seconds=0.0)).train()
    trainer = Trainer(DETECT_FILL, source, on_cuda(tmp_path))
    trainer.resume()
    assert trainer.step == 1
    assert trainer.train()
