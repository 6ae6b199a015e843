"""What the networks are asked for."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from restoration.tensors import to_signed_range
from training.metrics import LPIPS, load_weights

USUAL_DAMAGE = 0.15
"""Mean change of damaged samples, about."""
UNSEEN_DAMAGE = 0.02
"""Added to a sample's own damage where its share is taken: half of what an eye can see in a plain area, so that a
sample without damage does not weigh more than all others."""

FEW_DAMAGED_PX = 20.0
"""Of a sample: with fewer it does not weigh as much as others."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (N, C, H, W) where mask (N, 1, H, W) is 1; 0 where it is nowhere."""
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp(min=1.0)


def share_left(distance: Tensor, damage: Tensor, mask: Tensor) -> Tensor:
    """How much of the damage is left, mean over the samples whose mask is not empty, in units of `USUAL_DAMAGE`.

    What is faint must be mended as well as what is opaque, and what was not damaged at all given back all but exactly.

    distance, damage: (N, 3, H, W), by how much what was painted and what was damaged differ from the truth; mask:
    (N, 1, H, W), 0 or 1.
    """
    num_samples = mask.sum((1, 2, 3))
    left, before = ((each * mask).sum((1, 2, 3)) / (3.0 * num_samples).clamp(min=1.0) for each in (distance, damage))
    shares = left * USUAL_DAMAGE / (before + UNSEEN_DAMAGE)
    return shares.sum() / (num_samples > 0).sum().clamp(min=1)


def tversky_loss(
    damage_map: Tensor, mask: Tensor, counts: Tensor, *, samples_count_alike: bool = False, miss_weight: float = 0.7
) -> Tensor:
    """1 - Tversky index, misses weighted over false alarms (Salehi et al. 2017, arXiv 1706.05721).

    Over the batch, or the mean over its samples. A few pixels are added to both sides of the fraction, so that a clean
    sample has a loss too: any alarm raises it.

    damage_map: (N, 1, H, W) in [0, 1]; mask, counts: the same shape, 0 or 1.
    """
    over = (1, 2, 3) if samples_count_alike else (0, 1, 2, 3)
    spare_px = FEW_DAMAGED_PX if samples_count_alike else 1.0
    hits = (damage_map * mask * counts).sum(over)
    misses = ((1.0 - damage_map) * mask * counts).sum(over)
    alarms = (damage_map * (1.0 - mask) * counts).sum(over)
    index = (hits + spare_px) / (hits + miss_weight * misses + (1.0 - miss_weight) * alarms + spare_px)
    return (1.0 - index).mean()


def detection_loss(
    logits: Tensor, mask: Tensor, counts: Tensor, *, samples_count_alike: bool = False
) -> dict[str, Tensor]:
    """Cross entropy keeps clean photos clean, Tversky keeps thin structures from being given up."""
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return {
        "entropy": masked_mean(entropy, counts),
        "tversky": tversky_loss(torch.sigmoid(logits), mask, counts, samples_count_alike=samples_count_alike),
    }


HARD_SHARE = 1.0 / 256.0
"""Of a sample's undamaged pixels, those that look most like damage."""
NEAR_PX = 4
"""Around damage an alarm is no false one: its faint edge has no sharp end."""


def hard_alarms_loss(logits: Tensor, mask: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy of each sample's worst false alarms, mean over the samples.

    A clean photo stays as it is only if none of its pixels is taken for damage: what decides is the worst few, which a
    mean over all hardly sees (hard example mining, Shrivastava et al. 2016, arXiv 1604.03540).

    logits, mask, counts: (N, 1, H, W).
    """
    is_near_damage = F.max_pool2d(mask, 2 * NEAR_PX + 1, stride=1, padding=NEAR_PX) > 0
    is_undamaged = ~is_near_damage & (counts > 0)
    alarms = torch.where(is_undamaged, logits, torch.full_like(logits, -math.inf)).flatten(1)
    worst = alarms.topk(max(1, round(alarms.shape[1] * HARD_SHARE)), dim=1).values
    return F.softplus(worst).mean()  # 0 for what is minus infinity


def misses_loss(logits: Tensor, mask: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy of each sample's damaged pixels, mean over the samples that have any.

    In a mean over all pixels a hairline hardly counts, and what is surely missed has no slope in `tversky_loss`: once
    given up, it stays so. Fewer than `FEW_DAMAGED_PX` count as so many.

    logits, mask, counts: (N, 1, H, W).
    """
    damaged = mask * counts
    num_damaged = damaged.sum((1, 2, 3))
    misses = (F.softplus(-logits) * damaged).sum((1, 2, 3)) / num_damaged.clamp(min=FEW_DAMAGED_PX)
    return misses.sum() / (num_damaged > 0).sum().clamp(min=1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, fake_patches: Tensor | None = None) -> Tensor:
    """Mean of the losses on real and fake. fake_patches (N, 1, h, w): 1 for patches that show any fake sample."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits), reduction="none")
    return (real + (fake.mean() if fake_patches is None else masked_mean(fake, fake_patches))) / 2.0


def adversarial_loss(fake_logits: Tensor, fake_patches: Tensor | None = None) -> Tensor:
    fooled = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits), reduction="none")
    return fooled.mean() if fake_patches is None else masked_mean(fooled, fake_patches)


def feature_matching_loss(real_features: Sequence[Tensor], fake_features: Sequence[Tensor]) -> Tensor:
    """Mean distance of the discriminator's features (Wang et al. 2018, arXiv 1711.11585)."""
    distances = [F.l1_loss(fake, real.detach()) for real, fake in zip(real_features, fake_features, strict=True)]
    return torch.stack(distances).mean()


def patches_of(mask: Tensor, logits: Tensor) -> Tensor:
    """Which of the discriminator's patches hold any sample of the mask: (N, 1, h, w), 0 or 1."""
    return F.adaptive_max_pool2d(mask, logits.shape[-2:])


FEW_PIXELS = 64.0
"""A mask of fewer is taken for one of so many: a speck is seen by features of many pixels around it."""


class PerceptualLoss:
    """How far what was painted looks from the truth: LPIPS's distance of VGG16's features, up to relu3_3.

    The evaluation measures another network's, AlexNet's. The weights are not part of this repository: a folder with
    `vgg16_features_to_relu3_3_fp16.safetensors` (torchvision's names) and `lpips_vgg_lin.safetensors` (`linN.weight`).
    Raises DataError if it lacks one.
    """

    BLOCKS = ((0, 2), (5, 7), (10, 12, 14))  # torchvision's indices; a pooling layer before each but the first

    def __init__(self, folder: Path, device: torch.device) -> None:
        features = load_weights(folder / "vgg16_features_to_relu3_3_fp16.safetensors", "--perceptual-weights")
        linear = load_weights(folder / "lpips_vgg_lin.safetensors", "--perceptual-weights")
        self._weights = {name: _placed(weight, device) for name, weight in (features | linear).items()}

    def __call__(self, picture: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
        """picture, clean: (N, 3, H, W) in [0, 1], alike outside of mask, (N, 1, H, W), 0 or 1.

        Returns the mean over samples of what the distances add up to for each masked pixel.
        """
        return self.compare(picture, clean, mask.sum((1, 2, 3)).clamp(min=FEW_PIXELS))

    def compare(self, picture: Tensor, clean: Tensor, num_masked: Tensor) -> Tensor:
        """num_masked: (N,), by which the sums of distances of each sample are divided."""
        x = _placed(LPIPS.normalised(to_signed_range(torch.cat([picture, clean]))), picture.device)
        total = x.new_zeros(())
        for index, layers in enumerate(self.BLOCKS):
            x = F.max_pool2d(x, 2) if index else x
            for layer in layers:
                weight, bias = (self._weights[f"features.{layer}.{name}"] for name in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            painted, true = F.normalize(x.float(), dim=1, eps=1e-6).chunk(2)
            distances = (painted - true.detach()).square() * self._weights[f"lin{index}.weight"]
            total = total + (distances.sum((1, 2, 3)) * 4.0**index / num_masked).mean()
        return total


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; what has four dimensions channels last, as it is fastest."""
    if tensor.dim() != 4:
        return tensor.to(device)
    return tensor.to(device).contiguous(memory_format=torch.channels_last)
