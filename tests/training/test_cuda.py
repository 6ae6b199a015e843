"""Training on a GPU: pairs that are composed ahead are those of their steps, and a run learns, stops and goes on."""

import dataclasses

import pytest
import torch

from restoration.errors import LossNotFinite
from training.damage import Pairs
from training.pairs import BatchShape, iterate_batches, make_batch
from training.recipes import Phase
from training.trainer import Trainer

from .small_recipes import DETECT_FILL, Interrupted, make_source, settings_for

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
CUDA = torch.device("cuda", 0)
SHAPE = BatchShape(4, 64)


def on_cuda(folder, **changes):
    return dataclasses.replace(settings_for(folder, **changes), device=CUDA)


def test_what_is_composed_ahead_is_what_the_step_would_make(bank):
    source = make_source(DETECT_FILL, bank.to(CUDA))
    ahead = list(iterate_batches(source, range(5, 9), SHAPE, CUDA, num_workers=0))
    for step, pairs in zip(range(5, 9), ahead, strict=True):
        at_once = make_batch(source, step, SHAPE, CUDA)
        assert all(torch.equal(each, vars(at_once)[name]) for name, each in vars(pairs).items())


def test_who_stops_early_waits_for_no_batch(bank):
    batches = iterate_batches(make_source(DETECT_FILL, bank.to(CUDA)), range(10**6), SHAPE, CUDA, num_workers=0)
    next(batches)
    batches.close()


def test_what_fails_while_it_is_composed_fails_the_run(bank, tmp_path):
    def fail(pairs: Pairs) -> Pairs:
        raise ZeroDivisionError

    source = Interrupted(make_source(DETECT_FILL, bank.to(CUDA)), 3, fail)
    with pytest.raises(ZeroDivisionError):
        Trainer(DETECT_FILL, source, on_cuda(tmp_path)).train()


def test_the_loss_falls(bank, tmp_path):
    phase = Phase("detector", 60, num_crops=8, crop_px=32, learning_rate=4e-3)
    trainer = Trainer(
        dataclasses.replace(DETECT_FILL, phases=(phase,)), make_source(DETECT_FILL, bank), on_cuda(tmp_path)
    )
    shown = []
    report = trainer._report
    trainer._report = lambda losses, *others: (shown.append(float(losses.shown["entropy"])), report(losses, *others))
    assert trainer.train()
    assert sum(shown[-10:]) < 0.8 * sum(shown[:10])


def test_a_step_that_is_not_finite_is_named_though_others_have_followed(bank, tmp_path):
    def spoil(pairs: Pairs) -> Pairs:
        return dataclasses.replace(pairs, damaged=pairs.damaged * torch.nan)

    source = Interrupted(make_source(DETECT_FILL, bank.to(CUDA)), 1, spoil)
    with pytest.raises(LossNotFinite, match="step 1: "):
        Trainer(DETECT_FILL, source, on_cuda(tmp_path)).train()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_that_was_stopped_goes_on(bank, tmp_path):
    source = make_source(DETECT_FILL, bank.to(CUDA))
    assert not Trainer(DETECT_FILL, source, on_cuda(tmp_path, max_seconds=0.0)).train()
    trainer = Trainer(DETECT_FILL, source, on_cuda(tmp_path))
    trainer.resume()
    assert trainer.step == 1
    assert trainer.train()
