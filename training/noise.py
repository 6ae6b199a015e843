"""What a denoiser takes away, added to clean crops: film grain, sensor noise, JPEG; in batched tensor operations."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from restoration.unets import soften
from training.damage import Pairs, defocus, expose, fade_out, to_grey, tone_down
from training.jpeg import MCU_PX, compress_jpeg, compress_jpeg_subsampled
from training.randomness import chance, change_some, normal, uniform

MOST_NOISE = 0.2
"""Standard deviation of the strongest grain and noise, 51 of 255 levels."""
QUALITIES = (10.0, 95.0)
SOFTENED_SPREAD = 3.0
"""Independent samples have this times the standard deviation of their 3 x 3 means."""

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class NoiseConfig:
    """Shares of the crops that have each of these; they mix, and about a sixth of the crops has none."""

    grain: float = 0.4
    noise: float = 0.4
    jpeg: float = 0.5


def make_noisy_pairs(photos: Tensor, config: NoiseConfig, rng: torch.Generator) -> Pairs:
    """photos: (N, 3, H, W) float32 in [0, 1]. A pair's mask is empty: nothing in it is structural damage.

    Some photos become grey, sepia, faded, harder or soft first, in both pictures; what is grey has grey noise.
    """
    clean = photos
    for probability, age in ((0.1, expose), (0.4, tone_down), (0.2, fade_out), (0.2, defocus)):
        clean = change_some(clean, probability, rng, partial(age, rng=rng))
    clean = clean.clamp(0, 1)
    noisy = change_some(clean, config.grain, rng, partial(add_film_grain, rng=rng))
    noisy = change_some(noisy, config.noise, rng, partial(add_sensor_noise, rng=rng)).clamp(0, 1)
    noisy = change_some(noisy, config.jpeg, rng, partial(compress, rng=rng))
    return Pairs(noisy, clean, torch.zeros_like(clean[:, :1]), torch.ones_like(clean[:, :1]))


def draw_strength(n: int, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1): standard deviations from 0 to `MOST_NOISE`, weak ones more often."""
    return uniform(n, 0.0, 1.0, rng) ** 2 * MOST_NOISE


def add_film_grain(photos: Tensor, rng: torch.Generator) -> Tensor:
    """In all channels alike; of one pixel or of a few, strongest in the middle tones as silver grain is."""
    n = len(photos)
    fine = normal(photos[:, :1], rng)
    coarse = soften(fine) * SOFTENED_SPREAD
    coarse = torch.where(chance(n, 0.3, rng) > 0, soften(coarse) * 1.5, coarse)
    grain = torch.lerp(fine, coarse, chance(n, 0.6, rng))
    in_tones = torch.lerp(torch.ones_like(grain), 2.0 * (to_grey(photos) * (1.0 - to_grey(photos))).sqrt(), 0.7)
    return photos + grain * in_tones * draw_strength(n, rng) * 0.75


def add_sensor_noise(photos: Tensor, rng: torch.Generator) -> Tensor:
    """In each channel by itself, or in all alike where the photo is grey; a part of it grows with the light."""
    n = len(photos)
    noise = normal(photos, rng)
    is_alike = torch.maximum(chance(n, 0.25, rng), is_grey(photos))
    noise = torch.where(is_alike > 0, noise[:, :1], noise)
    shot = torch.lerp(torch.ones_like(photos), 1.5 * photos.clamp(min=0.0).sqrt(), uniform(n, 0.0, 1.0, rng))
    return photos + noise * shot * draw_strength(n, rng)


def is_grey(photos: Tensor) -> Tensor:
    """(N, 1, 1, 1), 1 for the photos whose channels are alike."""
    spread = (photos.amax(dim=1) - photos.amin(dim=1)).amax(dim=(1, 2))
    return (spread < 1e-4).float().view(-1, 1, 1, 1)


def compress(photos: Tensor, rng: torch.Generator) -> Tensor:
    """JPEG, most with halved chroma; its grid lies anywhere, as in a picture that was cut after it was compressed."""
    n = len(photos)
    quality = uniform(n, *QUALITIES, rng)
    down, right = (int(px) for px in torch.randint(0, MCU_PX, (2,), generator=rng, device=rng.device))
    shifted = F.pad(photos, (right, 0, down, 0), mode="replicate")
    compressed = torch.where(
        chance(n, 0.75, rng) > 0, compress_jpeg_subsampled(shifted, quality), compress_jpeg(shifted, quality)
    )
    return compressed[:, :, down:, right:]
