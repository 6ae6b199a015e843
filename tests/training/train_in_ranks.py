"""`torchrun -m tests.training.train_in_ranks RUN NUM_STEPS`: the small detector and filler, up to that step."""

import dataclasses
import sys
from pathlib import Path

import torch

from tests.training.small_recipes import DETECT_FILL, make_source
from training.overlays import build_bank
from training.ranks import join_ranks
from training.recipes import Phase
from training.trainer import RunSettings, Trainer

RECIPE = dataclasses.replace(
    DETECT_FILL,
    phases=(
        Phase("detector", 12, num_crops=8, crop_px=32, learning_rate=1e-3),
        Phase("filler", 4, num_crops=8, crop_px=64, learning_rate=1e-3, adversarial=0.1, feature_matching=2.0),
    ),
)


def main(run: Path, num_steps: int) -> None:
    with join_ranks("cpu") as (ranks, device):
        settings = RunSettings(run, device, torch.float32, log_every_steps=1, ranks=ranks)
        trainer = Trainer(RECIPE, make_source(RECIPE, build_bank("train", num_per_family=4)), settings)
        if (run / "checkpoint.pt").exists():
            trainer.resume()
        trainer._should_stop = lambda _seconds: trainer.step >= num_steps  # type: ignore[method-assign]
        trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
