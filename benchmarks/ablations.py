"""`python -m benchmarks.ablations PHOTOS --weights FOLDER`: the filler, one change at a time, at equal budgets.

Every row trains a filler from nothing on the same crops of 128 px, for as many minutes of processor time of one thread,
and differs from the first row in one thing. They are measured on the same held-out photographs with held-out
damage, the true mask given: damaged samples erased, and looked through; of each row both the moving average of the
weights and the weights themselves. A row that was measured is not run again: each is written to `--out` when it ends,
with its seed and budget, so that rows may be run one by one, or at the same time on different cores. The table is of
rows of one budget. The first row with several `--seeds` shows how far chance alone takes two rows apart.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restoration.device import choose_precision
from restoration.generator import DetectFill, DetectFillConfig
from restoration.tensors import to_samples
from restoration.unets import KeepingUNet, ResidualConv
from training.damage import Pairs
from training.discriminator import PatchGAN
from training.drawing import INNOCENT
from training.losses import PerceptualLoss
from training.metrics import LPIPS, psnr
from training.overlays import build_bank
from training.pairs import BatchShape, DamagedOnTheFly, make_batch
from training.photos import load_photos
from training.recipes import RECIPES, Phase, Recipe
from training.steps import condition_channels, run_step
from training.trainer import placed

CPU = torch.device("cpu")
CROP_PX, NUM_CROPS = 128, 16
NUM_MEASURED_BATCHES = 8
EMA_DECAY = 0.999
WARM_UP_STEPS = 100
BASE = Phase(
    "filler",
    1,
    num_crops=NUM_CROPS,
    crop_px=CROP_PX,
    learning_rate=6e-4,
    see_through_share=0.5,
    wrong_mask_share=0.25,
    samples_count_alike=True,
)

Change = Callable[[DetectFill], None]


def in_precision() -> torch.autocast:
    """bfloat16 where the processor has instructions for it: emulated it would take most of a row's budget."""
    return torch.autocast("cpu", torch.bfloat16, enabled=choose_precision(CPU) == "bfloat16")


def leave(generator: DetectFill) -> None:
    """No change of the networks."""


# --- one change of the network each ---------------------------------------------------------------------------------


class TransposedUNet(KeepingUNet):
    """The learnt enlargement of the original, in place of nearest neighbours."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], dilations: tuple[int, ...]
    ) -> None:
        super().__init__(in_channels, out_channels, channels, dilations)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1) for fine, coarse in pairwise(channels)
        )

    def enlarge(self, up: nn.Module, x: Tensor) -> Tensor:
        enlarged: Tensor = up(x)
        return enlarged


class SelfAttention(nn.Module):
    """x + attention over all places of the coarsest level (Zhang et al. 2018, arXiv 1805.08318)."""

    def __init__(self, channels: int, num_heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        attended = self.attention(places, places, places, need_weights=False)[0]
        added: Tensor = self.gain * attended.transpose(1, 2).view_as(x)
        return x + added


class ResidualFill(DetectFill):
    """What is painted is added to the damaged sample, even an erased one: the formulation that left ghosts."""

    def fill_unclipped(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        return super().fill_unclipped(tiles, mask, conditions) - 0.5 + tiles


def filler_shape(generator: DetectFill) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    return 3 + 2, 3, generator.config.filler_channels, generator.config.filler_dilations


def transpose(generator: DetectFill) -> None:
    generator.filler = TransposedUNet(*filler_shape(generator))


def attend(generator: DetectFill) -> None:
    context, channels = generator.filler.context, generator.config.filler_channels[-1]
    generator.filler.context = nn.Sequential(*list(context)[:2], SelfAttention(channels), *list(context)[2:])


def normalise(generator: DetectFill) -> None:
    for block in generator.filler.modules():
        if isinstance(block, ResidualConv):
            norm = nn.InstanceNorm2d(block.conv.out_channels, affine=True)
            block.conv = nn.Sequential(block.conv, norm)  # type: ignore[assignment]


# --- the rows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What differs from the base."""

    title: str
    phase: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    change: Change = leave
    generator: type[DetectFill] = DetectFill


ROWS = {
    "base": Row("as it is: outright, keeps a share of what it sees, dilations, L1 relative to the damage"),
    "transposed": Row("transposed convolutions", change=transpose),
    "norm": Row("instance norm in every block", change=normalise),
    "residual": Row(
        "added to the damaged sample, not outright", config={"filler_keeps": False}, generator=ResidualFill
    ),
    "prefilled": Row("is shown what pull and push makes of it, besides", config={"filler_prefills": True}),
    "keeps-nothing": Row("outright, keeps nothing of what it sees", config={"filler_keeps": False}),
    "erased": Row("trained on erased samples alone", phase={"see_through_share": 0.0}),
    "seen": Row("trained on looking through alone", phase={"see_through_share": 1.0}),
    "no-dilations": Row("no dilations", config={"filler_dilations": (1, 1, 1, 1, 1)}),
    "attention": Row("self-attention at the coarsest level besides", change=attend),
    "plain-l1": Row("L1 over all damaged pixels alike", phase={"samples_count_alike": False}),
    "adversarial": Row("and adversarial, 0.1", phase={"adversarial": 0.1}),
    "matching": Row(
        "and adversarial, 0.1, and feature matching, 2", phase={"adversarial": 0.1, "feature_matching": 2.0}
    ),
    "perceptual": Row("and perceptual, 0.5: VGG16 to relu3_3", phase={"perceptual": 0.5}),
}


# --- training and measuring -----------------------------------------------------------------------------------------


def train(
    row: Row, source: DamagedOnTheFly, recipe: Recipe, seconds: float, weights: Path | None
) -> tuple[DetectFill, DetectFill, int]:
    """After so many seconds of processor time: the moving average, the weights themselves, and how many steps it was.

    The source's seed is that of the weights, too.
    """
    torch.manual_seed(source.seed)
    phase = dataclasses.replace(BASE, **row.phase)
    assert isinstance(recipe.generator, DetectFillConfig)
    generator = row.generator(dataclasses.replace(recipe.generator, denoiser_channels=(), **row.config))
    row.change(generator)
    placed(generator, CPU)
    judge = placed(PatchGAN(condition_channels(generator), recipe.discriminator), CPU)
    averaged = deepcopy(generator).requires_grad_(False)
    optimisers = [torch.optim.Adam(network.parameters(), betas=recipe.betas) for network in (generator.filler, judge)]
    perceptual = PerceptualLoss(weights, CPU) if phase.perceptual and weights else None
    shape = BatchShape(phase.num_crops, phase.crop_px, phase.damage)
    step, started_seconds = 0, time.process_time()
    while (spent := (time.process_time() - started_seconds) / seconds) < 1.0:
        pairs = make_batch(source, step, shape, CPU)
        rate = phase.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * spent))
        with in_precision():
            rng = torch.Generator().manual_seed(step)
            losses = run_step(generator, judge, pairs, phase, recipe, rng, perceptual)
        _update(generator.filler, optimisers[0], losses.generator, rate, recipe)
        if losses.discriminator is not None:
            _update(judge, optimisers[1], losses.discriminator, rate, recipe)
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, current in zip(averaged.filler.parameters(), generator.filler.parameters(), strict=True):
                kept.lerp_(current, 1.0 - decay)
        step += 1
    return averaged.eval(), generator.eval(), step


def _update(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float, recipe: Recipe) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), recipe.max_gradient_norm or math.inf)
    optimiser.step()


@torch.inference_mode()
def measure(generator: DetectFill, batches: list[Pairs], lpips: LPIPS | None) -> dict[str, float]:
    """PSNR in dB and LPIPS, the true mask given: means over the crops that are damaged."""
    scores: dict[str, list[float]] = {}
    for pairs in batches:
        pictures = {"nothing": pairs.damaged}
        for name, sees in (("erased", 0.0), ("seen", 1.0)):
            with in_precision():
                filled = generator.fill(pairs.damaged, pairs.mask, torch.full_like(pairs.mask, sees))
            pictures[name] = torch.lerp(pairs.damaged, filled, pairs.mask)
        for index in pairs.mask.flatten(1).any(dim=1).nonzero().flatten().tolist():
            clean = to_samples(pairs.clean[index])
            for name, picture in pictures.items():
                samples = to_samples(picture[index].clamp(0, 1))
                scores.setdefault(f"{name}, dB", []).append(psnr(samples, clean))
                if lpips:
                    scores.setdefault(f"{name}, LPIPS", []).append(lpips(samples, clean))
    return {name: float(np.mean(each)) for name, each in scores.items()}


def shift_variance(generator: DetectFill, batches: list[Pairs]) -> float:
    """Levels by which what is painted differs, on average, when the tile lies two samples farther on."""
    differences = []
    for pairs in batches[:2]:
        with torch.inference_mode(), in_precision():
            erased = torch.zeros_like(pairs.mask)
            here = generator.fill(pairs.damaged, pairs.mask, erased)
            moved = [each.roll((2, 2), dims=(2, 3)) for each in (pairs.damaged, pairs.mask, erased)]
            there = generator.fill(*moved).roll((-2, -2), dims=(2, 3))
        inner = slice(32, -32)
        where = pairs.mask[:, :, inner, inner].expand(-1, 3, -1, -1) > 0
        differences.append((here - there)[:, :, inner, inner].abs()[where].mean().item() * 255.0)
    return float(np.mean(differences))


def held_out(photos: Path, overlays: Path | None, recipe: Recipe) -> Iterator[Pairs]:
    chosen = load_photos(photos, "validation", held_out_share=recipe.held_out_share, short_side_px=recipe.short_side_px)
    bank = build_bank("evaluation", overlay_folder=overlays, families=(*recipe.damage.families, INNOCENT))
    source = DamagedOnTheFly(chosen, bank, recipe.damage, recipe.crops, seed=1)
    for step in range(NUM_MEASURED_BATCHES):
        yield make_batch(source, step, BatchShape(NUM_CROPS, CROP_PX), CPU)


def table(folder: Path, minutes: float) -> str:
    """All rows of this budget that were measured, as Markdown."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    columns = ["steps", "erased, dB", "erased, LPIPS", "seen, dB", "seen, LPIPS", "not averaged, dB", "moved, levels"]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in ROWS.items():
        for record in found:
            if (record["row"], record["minutes"]) == (name, minutes):
                title = row.title + (f"; seed {record['seed']}" if record["seed"] else "")
                cells = [_cell(record.get(column)) for column in columns]
                lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def record_of(
    row: Row, source: DamagedOnTheFly, recipe: Recipe, minutes: float, batches: list[Pairs], weights: Path | None
) -> dict[str, Any]:
    """Train and measure one row."""
    averaged, not_averaged, num_steps = train(row, source, recipe, minutes * 60.0, weights)
    return {
        "steps": num_steps,
        **measure(averaged, batches, LPIPS(weights) if weights else None),
        "not averaged, dB": measure(not_averaged, batches, None)["erased, dB"],
        "moved, levels": shift_variance(averaged, batches),
    }


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("--overlays", type=Path)
    arguments.add_argument("--weights", type=Path, help="folder of LPIPS's and VGG16's weights, see training.metrics")
    arguments.add_argument("--minutes", type=float, default=15.0, help="of processor time, a row")
    arguments.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0], help="of weights and pairs")
    arguments.add_argument("--out", type=Path, default=Path("runs/ablations"))
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES["detect-fill"](1)
    photos = load_photos(
        asked.photos, "train", held_out_share=recipe.held_out_share, short_side_px=recipe.short_side_px
    )
    bank = build_bank("train", overlay_folder=asked.overlays, families=(*recipe.damage.families, INNOCENT))
    batches = list(held_out(asked.photos, asked.overlays, recipe))
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, seed in product(asked.rows, asked.seeds):
        done = asked.out / f"{name}-seed{seed}-{asked.minutes:g}min.json"
        if done.exists():
            continue
        source = DamagedOnTheFly(photos, bank, recipe.damage, recipe.crops, seed)
        scores = record_of(ROWS[name], source, recipe, asked.minutes, batches, asked.weights)
        record = {"row": name, "seed": seed, "minutes": asked.minutes, **scores}
        done.write_text(json.dumps(record, indent=1), encoding="utf-8")
        print(record, flush=True)
    print(table(asked.out, asked.minutes))


if __name__ == "__main__":
    main()
