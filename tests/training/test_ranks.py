"""Real processes that train one run together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from restoration.errors import InvalidOption
from training.checkpoint import load_checkpoint
from training.pairs import BatchShape, make_batch
from training.ranks import Ranks, expect_alone

from .small_recipes import CPU, DETECT_FILL, make_source
from .train_in_ranks import main as train_in_this_process

REPOSITORY = Path(__file__).parents[2]


def train_in_two_processes(run: Path, num_steps: int) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    finished = subprocess.run(
        [sys.executable, "-m", *launcher, "tests.training.train_in_ranks", str(run), str(num_steps)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def curve(run: Path, name: str) -> torch.Tensor:
    events = EventAccumulator(str(run / "curves"))
    events.Reload()
    return torch.tensor([event.value for event in events.Scalars(name)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """One process to the end; and two processes, of whose run one alone trains the second half."""
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    train_in_this_process(alone, 16)
    train_in_two_processes(together, 10)
    train_in_this_process(together, 16)
    return alone, together


@pytest.mark.parametrize("name", ["detector/entropy", "detector/tversky"])
def test_two_processes_have_the_loss_curve_of_one_with_the_same_batch(runs, name):
    """Within a seventh: losses that are shares of a batch's damage are taken over each process's rows."""
    alone, together = (curve(run, name) for run in runs)
    assert len(alone) == len(together) == 12
    torch.testing.assert_close(together, alone, rtol=0.15, atol=0.0)


def test_a_run_goes_on_in_another_number_of_processes_to_about_the_same_weights(runs):
    alone, together = (load_checkpoint(run) for run in runs)
    assert alone["step"] == together["step"] == 16
    for part in ("generator", "average", "discriminator"):
        for name, weight in alone[part].items():
            assert torch.isfinite(together[part][name]).all()
            assert (together[part][name] - weight).abs().max() < 0.05, name


def test_each_process_has_its_own_rows_and_all_have_all(bank):
    pairs = make_batch(make_source(DETECT_FILL, bank), 0, BatchShape(4, 32), CPU)
    shares = [Ranks(rank, 2).own_rows(pairs) for rank in range(2)]
    assert torch.equal(torch.cat([share.damaged for share in shares]), pairs.damaged)
    assert torch.equal(torch.cat([share.mask for share in shares]), pairs.mask)


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(bank):
    pairs = make_batch(make_source(DETECT_FILL, bank), 0, BatchShape(4, 32), CPU)
    with pytest.raises(InvalidOption, match="a batch of 4 cannot be shared out evenly among 3 processes"):
        Ranks(0, 3).own_rows(pairs)


def test_what_one_process_does_is_refused_to_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidOption, match="`run` is for one process"):
        expect_alone("run")
