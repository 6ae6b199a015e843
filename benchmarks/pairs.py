"""`python -m benchmarks.pairs PHOTOS`: does the trainer ever wait? Pairs made a second beside pairs consumed.

Every kind of step that a recipe has is trained for a few steps by the trainer itself, with one worker process that
makes its pairs (`--workers 1`). Both are counted in processor seconds, the trainer's own and the worker's: so it does
not matter what else the machine does, and with a core for each the ratio says by how much pairs are made faster than
they are used. What a run costs whatever its length, such as its checkpoint, is measured alone and left out.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from training.jobs import Data
from training.pairs import PairSource
from training.recipes import RECIPES, Phase, Recipe
from training.trainer import RunSettings, Trainer

SAME_WORK = ("num_steps", "learning_rate", "warm_up_steps", "decays", "hard_alarms", "samples_count_alike")
"""What phases may differ in without a step's being more or less work."""
SHORT_STEPS = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rates:
    """Of one kind of step, in pairs a processor second."""

    phase: Phase
    made: float
    consumed: float

    @property
    def title(self) -> str:
        scales = f", {self.phase.num_scales} scales" if self.phase.num_scales > 1 else ""
        judged = ", adversarial" if self.phase.adversarial else ""
        return f"{self.phase.trains}, {self.phase.num_crops} x {self.phase.crop_px} px{scales}{judged}"


def kinds_of_steps(recipe: Recipe) -> Iterator[Phase]:
    """One phase of each kind; which shares of samples look like what does not matter."""
    seen = []
    for phase in recipe.phases:
        work = {name: value for name, value in vars(phase).items() if name not in SAME_WORK and "share" not in name}
        work["damage"] = None
        if work not in seen:
            seen.append(work)
            yield phase


def measure(recipe: Recipe, phase: Phase, source: PairSource, num_steps: int) -> Rates:
    short, long = (train(recipe, phase, source, SHORT_STEPS + more) for more in (0, num_steps))
    num_pairs = num_steps * phase.num_crops
    consumed, made = (num_pairs / (of_long - of_short) for of_long, of_short in zip(long, short, strict=True))
    return Rates(phase, made, consumed)


def train(recipe: Recipe, phase: Phase, source: PairSource, num_steps: int) -> tuple[float, float]:
    """Processor seconds of the trainer, and of the worker that makes its pairs."""
    alone = replace(recipe, phases=(replace(phase, num_steps=num_steps),))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(alone, source, RunSettings(Path(folder), CPU, num_workers=1))
        before = time.process_time(), seconds_of_children()
        trainer.train()
        return time.process_time() - before[0], seconds_of_children() - before[1]


def seconds_of_children() -> float:
    """Processor seconds of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(rates: list[Rates]) -> str:
    lines = ["| step | made a second | consumed a second | ratio |", "|---|---:|---:|---:|"]
    lines += [
        f"| {each.title} | {each.made:.1f} | {each.consumed:.1f} | {each.made / each.consumed:.1f} |" for each in rates
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("--overlays", type=Path)
    arguments.add_argument("--recipe", choices=("detect-fill", "fine-tune", "denoise"), default="detect-fill")
    arguments.add_argument("--steps", type=int, default=20, help="of each kind")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[asked.recipe](1)
    source = Data(asked.photos, None, asked.overlays).source(recipe, CPU)
    print(table([measure(recipe, phase, source, asked.steps) for phase in kinds_of_steps(recipe)]))


if __name__ == "__main__":
    main()
