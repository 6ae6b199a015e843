"""Whiskers, strands of hair, blades of grass, drawn into both pictures of a pair: they look like fibres and scratches.

What tells them from a fibre of dust is company: several leave one place, fan out, bend alike and taper to their tips,
where a fibre is alone, kinked anywhere and as wide at its ends as in its middle.
"""

import math

import torch
from torch import Tensor

from training.lights import colourfulness
from training.randomness import chance, uniform, uniform_each

NUM_STRANDS = 8  # at most; all are drawn side by side: (N, 8, H, W)


def add_strands(photos: Tensor, rng: torch.Generator) -> Tensor:
    """A tuft of four to eight on each, mostly light where the photo is dark and dark where it is light.

    photos: (N, 3, H, W) float32 in [0, 1]; returns the same.
    """
    n = len(photos)
    covers = _draw_tuft(photos, rng) * uniform(n, 0.7, 1.0, rng)
    cover = 1.0 - (1.0 - covers).prod(dim=1, keepdim=True)
    shades = uniform_each(n, NUM_STRANDS, 0.8, 1.2, rng)
    shade = (covers * shades).sum(dim=1, keepdim=True) / covers.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return torch.lerp(photos, (_hair_colour(photos, cover, rng) * shade).clamp(0, 1), cover)


def edge_softness_px(photos: Tensor) -> Tensor:
    """(N, 1, 1, 1): over how far the photo's steepest edge is spread, a Gaussian's standard deviation, 0.45 to 1.3.

    From the greatest difference of neighbours, as a share of the greatest of pixels four apart.
    """
    grey = photos.mean(dim=1, keepdim=True)
    near, far = ((grey[..., px:] - grey[..., :-px]).abs().amax(dim=(2, 3), keepdim=True) for px in (1, 4))
    return (0.4 * far / near.clamp(min=1e-3)).clamp(0.45, 1.3)


def _draw_tuft(photos: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 8, H, W) in [0, 1]: what each strand hides.

    A strand is a spiral around its root, so that it may bend by any angle: its direction, as seen from the root, turns
    evenly with the distance.
    """
    n, (height, width) = len(photos), photos.shape[2:]
    side_px = min(height, width)
    place, roots_x, roots_y, direction = _plant(n, height, width, rng)
    y = torch.arange(height, device=photos.device).view(1, 1, -1, 1) - height / 2 - roots_y
    x = torch.arange(width, device=photos.device).view(1, 1, 1, -1) - width / 2 - roots_x
    away_px = torch.hypot(x, y)

    length_px = torch.exp(uniform(n, math.log(0.25), math.log(1.0), rng)) * side_px
    lengths_px = length_px * uniform_each(n, NUM_STRANDS, 0.55, 1.0, rng)
    turning = (uniform(n, -0.9, 0.9, rng) + uniform(n, -0.3, 0.6, rng) * place) / length_px
    turning = turning * uniform_each(n, NUM_STRANDS, 0.75, 1.25, rng)
    fan = uniform(n, 0.15, 1.4, rng) * place + uniform_each(n, NUM_STRANDS, -0.08, 0.08, rng)
    aside = torch.atan2(y, x) - direction - fan - turning * away_px
    aside = aside - 2 * math.pi * (aside / (2 * math.pi)).round()
    distance_px = away_px * aside.abs() * torch.rsqrt(1.0 + (turning * away_px).square())

    left = (1.0 - away_px / lengths_px).clamp(min=0.0)  # of the way to the tip
    widest_px = torch.exp(uniform(n, math.log(0.5), math.log(2.0), rng)) * uniform_each(n, NUM_STRANDS, 0.7, 1.0, rng)
    width_px = widest_px * left.pow(uniform(n, 0.3, 0.9, rng))
    # a line as a lens shows it: the thinner, the fainter, and never narrower than what the lens makes of a point
    spread_px = (edge_softness_px(photos).square() + width_px.square() / 12.0).sqrt()
    peak = (width_px / (math.sqrt(2.0 * math.pi) * spread_px)).clamp(max=1.0)
    emerging = (away_px / (uniform(n, 0.0, 0.15, rng) * lengths_px + 0.5)).clamp(max=1.0)  # from fur or soil
    return peak * torch.exp(-0.5 * (distance_px / spread_px).square()) * emerging * _is_there(n, rng)


def _plant(n: int, height: int, width: int, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Each strand's place in the tuft, -0.5 to 0.5; its root, x and y in pixels from the middle; where the tuft leans.

    (N, 8, 1, 1) the first three, (N, 1, 1, 1) the last. Roots lie side by side as strands do, so that few cross.
    """
    side_px = min(height, width)
    order = torch.arange(NUM_STRANDS, device=rng.device).view(1, -1, 1, 1)
    place = (order + uniform_each(n, NUM_STRANDS, 0.0, 1.0, rng)) / NUM_STRANDS - 0.5
    x, y = uniform(n, -0.5, 0.5, rng) * width, uniform(n, -0.5, 0.5, rng) * height
    direction = torch.atan2(-y, -x) + uniform(n, -0.9, 0.9, rng)  # inwards, more or less
    beside_px = place * uniform(n, 0.02, 0.2, rng) * side_px
    x = x - torch.sin(direction) * beside_px + uniform_each(n, NUM_STRANDS, -0.03, 0.03, rng) * side_px
    y = y + torch.cos(direction) * beside_px + uniform_each(n, NUM_STRANDS, -0.03, 0.03, rng) * side_px
    return place, x, y, direction


def _is_there(n: int, rng: torch.Generator) -> Tensor:
    """(N, 8, 1, 1), 1 for four to eight strands of each tuft, else 0."""
    rank = torch.rand(n, NUM_STRANDS, 1, 1, generator=rng, device=rng.device).argsort(dim=1)
    return (rank < torch.randint(4, NUM_STRANDS + 1, (n, 1, 1, 1), generator=rng, device=rng.device)).float()


def _hair_colour(photos: Tensor, cover: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 3, 1, 1): grey, brown to blond or, of grass, green; grey throughout on a photo without colours."""
    n = len(photos)
    under = (photos.mean(dim=1, keepdim=True) * cover).sum(dim=(2, 3), keepdim=True)
    under = under / cover.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    contrast = uniform(n, 0.25, 0.7, rng)
    tone = torch.where(under < uniform(n, 0.35, 0.6, rng), under + contrast, under - contrast).clamp(0.03, 0.97)
    brown = torch.cat([uniform(n, 1.0, 1.15, rng), uniform(n, 0.82, 1.0, rng), uniform(n, 0.55, 0.95, rng)], dim=1)
    green = torch.cat([uniform(n, 0.75, 1.0, rng), uniform(n, 1.0, 1.1, rng), uniform(n, 0.4, 0.75, rng)], dim=1)
    tint = torch.where(chance(n, 0.15, rng) > 0, green, brown)
    tint = torch.where(chance(n, 0.4, rng) > 0, torch.ones_like(tint), tint)
    return tone * torch.lerp(torch.ones_like(tint), tint, colourfulness(photos))
