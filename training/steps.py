"""One step of each phase: a batch of pairs in, losses out. The trainer does the rest."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.generator import ERASED, DetectFill, Generator
from restoration.pix2pix import Pix2Pix
from restoration.tensors import to_signed_range
from training.damage import Pairs, pairs_from
from training.discriminator import PatchGAN
from training.losses import (
    PerceptualLoss,
    adversarial_loss,
    detection_loss,
    discriminator_loss,
    feature_matching_loss,
    hard_alarms_loss,
    masked_mean,
    misses_loss,
    patches_of,
    share_left,
)
from training.recipes import Phase, Recipe

Losses = dict[str, Tensor]

ERASED_ERROR = 0.15
"""What erased samples are off by, about: the mean distance of a photo's samples to those a few pixels away."""

FAINT_NOISE = 0.002
"""Half a level: noise that is as good as none. A crop without any does not weigh more than all others."""
DB_A_NEPER = 20.0 / math.log(10.0)


@dataclass(frozen=True)
class StepLosses:
    """`generator` and `discriminator` are what the two optimisers minimise; `shown` goes to the curves."""

    generator: Tensor
    discriminator: Tensor | None
    shown: Losses


def condition_channels(generator: Generator) -> int:
    """The channels that the discriminator sees beside the candidate."""
    return 4 if isinstance(generator, DetectFill) else 3


def trained_part(generator: Generator, phase: Phase) -> nn.Module:
    """The part of the generator whose weights this phase changes."""
    if isinstance(generator, DetectFill):
        part: nn.Module = getattr(generator, phase.trains)
        return part
    return generator


def run_step(
    generator: Generator,
    discriminator: PatchGAN,
    pairs: Pairs,
    phase: Phase,
    recipe: Recipe,
    rng: torch.Generator,
    perceptual: PerceptualLoss | None = None,
) -> StepLosses:
    """perceptual: needed by a phase that gives it a weight."""
    if isinstance(generator, Pix2Pix):
        return _pix2pix_step(generator, discriminator, pairs, phase, recipe)
    assert isinstance(generator, DetectFill)
    if phase.trains == "detector":
        return _detector_step(generator.detect_logits, pairs, phase, rng)
    if phase.trains == "verifier":
        return _detector_step(generator.verify_logits, pairs, phase, rng)
    if phase.trains == "denoiser":
        return _denoiser_step(generator, pairs)
    return _filler_step(generator, discriminator, pairs, phase, recipe, rng, perceptual)


Look = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def _detector_step(look: Look, pairs: Pairs, phase: Phase, rng: torch.Generator) -> StepLosses:
    """From the smallest copy to the crops themselves, each with what the one before it told."""
    copies = list(_halved_again_and_again(pairs, phase.num_scales))
    total = torch.zeros((), device=pairs.mask.device)
    told: Tensor | None = None
    for index, copy in enumerate(reversed(copies), 1 - len(copies)):
        logits, told = look(copy.damaged, _told_to_some(told, phase.untold_share, rng))
        logits = logits.float()
        losses = detection_loss(logits, copy.mask, copy.counts, samples_count_alike=phase.samples_count_alike)
        loss = losses["entropy"] + 0.5 * losses["tversky"]
        if phase.hard_alarms:
            losses["hard_alarms"] = hard_alarms_loss(logits, copy.mask, copy.counts)
            loss = loss + phase.hard_alarms * losses["hard_alarms"]
        if phase.misses:
            losses["misses"] = misses_loss(logits, copy.mask, copy.counts)
            loss = loss + phase.misses * losses["misses"]
        total = total + loss * 2.0**index
    with torch.no_grad():
        found = (logits > 0).float() * pairs.counts
        hits = (found * pairs.mask).sum()
        recall = hits / pairs.mask.sum().clamp(min=1.0)
        precision = hits / found.sum().clamp(min=1.0)
    return StepLosses(total, None, {**losses, "recall": recall, "precision": precision})


def _halved_again_and_again(pairs: Pairs, num_scales: int) -> Iterator[Pairs]:
    """The pairs, and copies of half the side of the one before: damage is what can be seen there."""
    yield pairs
    for _ in range(num_scales - 1):
        pairs = pairs_from(F.avg_pool2d(pairs.damaged, 2), F.avg_pool2d(pairs.clean, 2))
        yield pairs


def _told_to_some(told: Tensor | None, untold_share: float, rng: torch.Generator) -> Tensor | None:
    """Some samples must do without: a small photo has no copy, and nor has one in `mode=tile`."""
    if told is None:
        return None
    is_told = torch.rand(len(told), 1, 1, 1, generator=rng, device=rng.device) >= untold_share
    return told * is_told


def _denoiser_step(generator: DetectFill, pairs: Pairs) -> StepLosses:
    left = _log_noise(pairs.damaged + generator.denoise(pairs.damaged) - pairs.clean)
    before = _log_noise(pairs.damaged - pairs.clean)
    return StepLosses(left, None, {"noise_db": left * DB_A_NEPER, "noise_before_db": before * DB_A_NEPER})


def _log_noise(differences: Tensor) -> Tensor:
    """Mean over crops of the logarithm of the standard deviation: noise halved counts alike, strong or faint."""
    return 0.5 * (differences.square().mean((1, 2, 3)) + FAINT_NOISE**2).log().mean()


def draw_fill_mask(pairs: Pairs, phase: Phase, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The mask that the filler is given, and what it may look through: (N, 1, H, W) each, 0 or 1.

    A detector's mask is not the true one: it is a little wide, and it is wrong in places. So the true mask is widened
    by 0 to 3 px, and the mask of another sample is added to some. In some samples the filler may look through the mask.
    """
    n = len(pairs.mask)
    mask = pairs.mask
    widen = torch.randint(0, 4, (n, 1, 1, 1), generator=rng, device=rng.device)
    for px in (1, 2, 3):
        mask = torch.where(widen >= px, F.max_pool2d(mask, 3, stride=1, padding=1), mask)
    wrong = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < phase.wrong_mask_share
    mask = torch.maximum(mask, pairs.mask.roll(1, dims=0) * wrong)
    see_through = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < phase.see_through_share
    return mask, see_through.float().expand_as(mask)


def most_masked_quarters(mask: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
    """Of each sample the quarter that has most of the mask: a quarter of the work for a perceptual loss.

    mask: (N, 1, H, W); planes: (N, C, H, W) each; returns (N, C, H / 2, W / 2) of each.
    """
    n, _, height_px, width_px = mask.shape
    fullest = F.adaptive_avg_pool2d(mask, 2).flatten(1).argmax(dim=1)
    every = torch.arange(n, device=mask.device)
    halves = [each.reshape(n, -1, 2, height_px // 2, 2, width_px // 2) for each in planes]
    return tuple(each.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[every, fullest] for each in halves)


def _filler_step(
    generator: DetectFill,
    discriminator: PatchGAN,
    pairs: Pairs,
    phase: Phase,
    recipe: Recipe,
    rng: torch.Generator,
    perceptual: PerceptualLoss | None,
) -> StepLosses:
    mask, see_through = draw_fill_mask(pairs, phase, rng)
    picture = generator.fill_unclipped(pairs.damaged, mask, see_through).float()
    distance = (picture - pairs.clean).abs()
    inside = masked_mean(distance, mask)
    if phase.samples_count_alike:
        damage = (pairs.damaged - pairs.clean).abs()
        judged = share_left(distance, torch.where(see_through > 0, damage, ERASED_ERROR), mask)
    else:
        judged = inside
    # a little weight outside teaches the filler what the surroundings of a hole look like from within
    total = recipe.l1 * (judged + 0.1 * masked_mean(distance, 1.0 - mask))
    shown = {"l1_inside": inside}
    restored = torch.lerp(pairs.damaged, picture, mask)
    target = torch.lerp(pairs.damaged, pairs.clean, mask)
    if phase.perceptual:
        assert perceptual is not None
        shown["perceptual"] = perceptual(*most_masked_quarters(mask, restored, target, mask))
        total = total + phase.perceptual * shown["perceptual"]
    if phase.adversarial == 0.0:
        return StepLosses(total, None, shown)
    condition = torch.cat([pairs.damaged * (1.0 - mask) + ERASED * mask, mask], dim=1)
    discriminator.requires_grad_(False)
    fake_logits, fake_features = discriminator(condition, restored)
    with torch.no_grad():
        _, real_features = discriminator(condition, target)
    discriminator.requires_grad_(True)
    patches = patches_of(mask, fake_logits)
    adversarial = adversarial_loss(fake_logits.float(), patches)
    matching = feature_matching_loss(real_features, fake_features)
    total = total + phase.adversarial * adversarial + phase.feature_matching * matching
    real_logits, _ = discriminator(condition, target)
    caught_logits, _ = discriminator(condition, restored.detach())
    judge = discriminator_loss(real_logits.float(), caught_logits.float(), patches)
    return StepLosses(total, judge, {**shown, "adversarial": adversarial, "matching": matching, "discriminator": judge})


def _pix2pix_step(
    generator: Pix2Pix, discriminator: PatchGAN, pairs: Pairs, phase: Phase, recipe: Recipe
) -> StepLosses:
    damaged, clean = to_signed_range(pairs.damaged), to_signed_range(pairs.clean)
    restored = generator(damaged).float()
    real_logits, _ = discriminator(damaged, clean)
    caught_logits, _ = discriminator(damaged, restored.detach())
    judge = discriminator_loss(real_logits.float(), caught_logits.float())
    discriminator.requires_grad_(False)
    fake_logits, _ = discriminator(damaged, restored)
    discriminator.requires_grad_(True)
    adversarial = adversarial_loss(fake_logits.float())
    l1 = F.l1_loss(restored, clean)
    total = phase.adversarial * adversarial + recipe.l1 * l1
    return StepLosses(total, judge, {"l1": l1, "adversarial": adversarial, "discriminator": judge})
