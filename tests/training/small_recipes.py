"""Both recipes with networks of few channels and phases of few steps."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from restoration.generator import DetectFillConfig
from restoration.pix2pix import Pix2PixConfig
from training.damage import Pairs
from training.discriminator import PatchGANConfig
from training.noise import NoiseConfig
from training.overlays import OverlayBank
from training.pairs import BatchShape, DamagedOnDevice, DamagedOnTheFly, PairSource
from training.photos import PhotoSet, ResidentPhotos
from training.recipes import Phase, Recipe
from training.samples import crop_sample
from training.trainer import RunSettings

CPU = torch.device("cpu")

DETECT_FILL = Recipe(
    name="detect-fill",
    generator=DetectFillConfig((8, 8, 8, 8), (1,), (8, 8, 12, 12), (1, 2)),
    phases=(
        Phase("detector", 2, num_crops=4, crop_px=32, learning_rate=1e-3, warm_up_steps=1, decays=True),
        Phase("filler", 2, num_crops=4, crop_px=32, learning_rate=1e-3),
        Phase("filler", 2, num_crops=2, crop_px=64, learning_rate=1e-3, adversarial=0.1, feature_matching=2.0),
    ),
    discriminator=PatchGANConfig(channels=(4, 8, 8, 8), norm="spectral"),
    betas=(0.9, 0.99),
    ema_decay=0.999,
    max_gradient_norm=1.0,
)

PIX2PIX = Recipe(
    name="pix2pix",
    generator=Pix2PixConfig(channels=2),
    phases=(Phase("pix2pix", 6, num_crops=2, crop_px=256, learning_rate=2e-4, adversarial=1.0),),
    discriminator=PatchGANConfig(channels=(4, 8, 8, 8)),
)

DENOISE = replace(
    DETECT_FILL,
    name="denoise",
    generator=replace(DETECT_FILL.generator, denoiser_channels=(8, 8)),
    phases=(Phase("denoiser", 2, num_crops=4, crop_px=32, learning_rate=1e-3, noise=NoiseConfig()),),
)

_VERIFY = replace(DETECT_FILL.phases[0], trains="verifier", crop_px=64, num_scales=2, hard_alarms=0.1, misses=0.1)
LOOKED_AT = replace(
    DETECT_FILL,
    generator=replace(
        DETECT_FILL.generator, detector_context=2, verifier_channels=(8, 12), filler_keeps=True, filler_prefills=True
    ),
    phases=(_VERIFY, *(replace(phase, crop_px=64, perceptual=0.5) for phase in DETECT_FILL.phases[1:])),
)
"""With a verifier, a filler that starts from a smooth fill, and a perceptual loss."""

RECIPES = {recipe.name: recipe for recipe in (DETECT_FILL, PIX2PIX)}


def make_source(recipe: Recipe, bank: OverlayBank) -> DamagedOnTheFly:
    names = ["astronaut", "coffee"]
    photos = PhotoSet([crop_sample(name, 128) for name in names], names)
    return DamagedOnTheFly(photos, bank, recipe.damage, recipe.crops, recipe.seed)


def make_resident_source(recipe: Recipe, bank: OverlayBank, device: torch.device) -> DamagedOnDevice:
    """Makes the pairs of three steps at once."""
    photos = ResidentPhotos.of([crop_sample(name, 128) for name in ("astronaut", "coffee")], device)
    return DamagedOnDevice(photos, bank.to(device), recipe.damage, recipe.crops, recipe.seed, batches_at_once=3)


def settings_for(folder: Path, **changes) -> RunSettings:
    return RunSettings(folder, CPU, **changes)


@dataclass(frozen=True)
class Interrupted:
    """A source that does something when the pairs of one group are asked for."""

    source: PairSource
    at_group: int
    happens: Callable[[Pairs], Pairs]
    asked_for: list[int] = field(default_factory=list)
    """Groups so far."""

    @property
    def batches_at_once(self) -> int:
        return self.source.batches_at_once

    def draw(self, group: int, shape: BatchShape) -> torch.Tensor:
        return self.source.draw(group, shape)

    def compose(self, drawn: torch.Tensor, group: int, shape: BatchShape) -> Pairs:
        self.asked_for.append(group)
        pairs = self.source.compose(drawn, group, shape)
        return self.happens(pairs) if group == self.at_group else pairs
