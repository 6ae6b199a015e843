"""What looks like damage and is none, drawn into both pictures of a pair: here borders, wires, railings and lace.

Each differs from its damaged twin in what a detector can see: borders are smooth where worn edges are ragged; wires
run on from edge to edge, evenly and side by side, where scratches taper and skip; the bars of a lattice are evenly
spaced. For strands of hair and for lights see their modules. All functions take and return (N, 3, H, W) float32 in
[0, 1].
"""

import math
from functools import partial

import torch
from torch import Tensor

from training.lights import add_highlights, add_snow, add_stars
from training.randomness import chance, change_some, normal, uniform
from training.strands import add_strands


def add_objects(photos: Tensor, rng: torch.Generator) -> Tensor:
    """What a few photos show: they were taken with it, so it ages and is grainy as they are."""
    for probability, draw in (
        (0.03, add_wires),
        (0.03, add_lattice),
        (0.02, add_snow),
        (0.015, add_stars),
        (0.03, add_highlights),
        (0.03, add_strands),
    ):
        photos = change_some(photos, probability, rng, partial(draw, rng=rng))
    return photos


def add_margins(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Borders, beside some photos."""
    return change_some(photos, 0.12, rng, partial(add_borders, rng=rng))


def turned_coordinates(photos: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Across and along, (N, 1, H, W) each, in pixels from the middle, turned by (N, 1, 1, 1) radians."""
    height, width = photos.shape[2:]
    y = torch.arange(height, device=photos.device).view(1, 1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, device=photos.device).view(1, 1, 1, -1) - (width - 1) / 2
    return torch.cos(angle) * x + torch.sin(angle) * y, torch.cos(angle) * y - torch.sin(angle) * x


def plain_colour(n: int, rng: torch.Generator) -> Tensor:
    """(N, 3, 1, 1): light or dark, a third of them a little warm."""
    tone = torch.where(chance(n, 0.65, rng) > 0, uniform(n, 0.7, 1.0, rng), uniform(n, 0.0, 0.2, rng))
    warm = torch.cat([uniform(n, 1.0, 1.0, rng), uniform(n, 0.88, 1.0, rng), uniform(n, 0.75, 0.98, rng)], dim=1)
    return tone * torch.where(chance(n, 0.35, rng) > 0, warm, torch.ones_like(warm))


# --- in the picture ---------------------------------------------------------------------------------------------------


def add_wires(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Two to five cables or ropes side by side, sagging alike, each as even along its way as the photo's own edges."""
    n, side_px = len(photos), min(photos.shape[2:])
    across, along = turned_coordinates(photos, uniform(n, 0.0, math.pi, rng))
    sag = uniform(n, -0.4, 0.4, rng) / side_px
    offset = across - uniform(n, -0.3, 0.3, rng) * side_px - sag * along.square()
    converging = 1.0 + uniform(n, -0.6, 0.6, rng) * along / side_px  # seen at an angle
    spacing_px = uniform(n, 0.03, 0.15, rng) * side_px * converging.clamp(min=0.3)
    index = torch.minimum(
        (offset / spacing_px).round().clamp(min=0.0),
        torch.randint(1, 5, (n, 1, 1, 1), generator=rng, device=rng.device).float(),
    )
    distance_px = (offset - index * spacing_px).abs()
    half_px, soft_px = uniform(n, 0.2, 1.6, rng), uniform(n, 0.6, 1.4, rng)
    wire = torch.sigmoid((half_px - distance_px) / (0.4 * soft_px)) * uniform(n, 0.6, 1.0, rng)
    tone = torch.where(chance(n, 0.85, rng) > 0, uniform(n, 0.0, 0.25, rng), uniform(n, 0.7, 1.0, rng))
    return torch.lerp(photos, tone.expand_as(photos), wire)


def add_lattice(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Railings, blinds, fences, half of them with bars both ways as mesh or lace, over a part of the picture."""
    n, side_px = len(photos), min(photos.shape[2:])
    angle = uniform(n, 0.0, math.pi, rng)
    across, along = turned_coordinates(photos, angle)
    receding = 1.0 + uniform(n, -0.5, 0.5, rng) * along / side_px
    pitch_px = torch.exp(uniform(n, math.log(5.0), math.log(0.2 * side_px), rng)) * receding
    share = uniform(n, 0.1, 0.5, rng)
    soft_px = uniform(n, 0.5, 1.0, rng)
    bars = _bars(across, pitch_px, share, soft_px)
    other = _bars(along, pitch_px * uniform(n, 0.7, 1.5, rng), share, soft_px)
    bars = torch.where(chance(n, 0.5, rng) > 0, torch.maximum(bars, other), bars)
    low = uniform(n, -0.5, 0.2, rng) * side_px
    part = torch.sigmoid(across - low) * torch.sigmoid(low + uniform(n, 0.2, 0.8, rng) * side_px - across)
    bars = bars * part * uniform(n, 0.5, 1.0, rng)
    return torch.lerp(photos, plain_colour(n, rng).expand_as(photos), bars)


def _bars(across: Tensor, pitch_px: Tensor, share: Tensor, soft_px: Tensor) -> Tensor:
    """1 on bars that fill a share of each pitch, smooth at their edges."""
    phase = across / pitch_px
    distance_px = (phase - phase.round()).abs() * pitch_px
    return torch.sigmoid((0.5 * share * pitch_px - distance_px) / (0.4 * soft_px))


# --- around the picture -----------------------------------------------------------------------------------------------


def add_borders(photos: Tensor, rng: torch.Generator) -> Tensor:
    """The print's own border, or the scanner's lid beyond it, along some edges: smooth, and to stay.

    The print may lie a little askew, have rounded corners or a deckle edge, a thin line around the picture, a shadow.
    """
    n, _, height, width = photos.shape
    side_px = min(height, width)
    tilt = uniform(n, -0.04, 0.04, rng) * chance(n, 0.5, rng)
    x, y = turned_coordinates(photos, tilt)
    waves_px = _deckle(x, y, side_px, rng)
    depths_px = [uniform(n, -0.1, 0.12, rng).clamp(min=-0.05) * side_px for _ in range(4)]
    sides_px = (y + height / 2, height / 2 - y, x + width / 2, width / 2 - x)
    from_sides = [side - depth + waves_px for side, depth in zip(sides_px, depths_px, strict=True)]
    inside_px = _rounded(from_sides, uniform(n, 0.0, 0.12, rng) * side_px * chance(n, 0.4, rng))
    soft_px = uniform(n, 0.3, 1.0, rng)
    picture = torch.sigmoid(inside_px / (0.4 * soft_px))
    shadow = torch.exp(inside_px.clamp(max=0.0) / (uniform(n, 0.005, 0.03, rng) * side_px))
    shadow = shadow * uniform(n, 0.2, 0.6, rng) * chance(n, 0.35, rng)
    paper = uniform(n, 0.0, 0.01, rng) * normal(photos[:, :1], rng)
    border = plain_colour(n, rng) * (1.0 - shadow) + paper * chance(n, 0.5, rng)
    framed = torch.lerp(border, photos, picture)
    line_px = uniform(n, -0.02, 0.02, rng) * side_px
    line = torch.sigmoid((uniform(n, 0.3, 1.5, rng) - (inside_px - line_px).abs()) / 0.4)
    line = line * chance(n, 0.25, rng) * uniform(n, 0.5, 1.0, rng)
    return torch.lerp(framed, plain_colour(n, rng).expand_as(photos), line).clamp(0, 1)


def _rounded(from_sides: list[Tensor], radius_px: Tensor) -> Tensor:
    """(N, 1, H, W): distance to a rounded rectangle's outline, positive inside."""
    top_or_bottom, left_or_right = torch.minimum(*from_sides[:2]), torch.minimum(*from_sides[2:])
    straight = torch.minimum(top_or_bottom, left_or_right)
    lacks = [(radius_px - each).clamp(min=0.0) for each in (top_or_bottom, left_or_right)]
    in_corner = (lacks[0] > 0) & (lacks[1] > 0)
    return torch.where(in_corner, radius_px - torch.hypot(*lacks), straight)


def _deckle(x: Tensor, y: Tensor, side_px: int, rng: torch.Generator) -> Tensor:
    """Cut in even waves, as prints of the 1940s and 1950s are: a pixel or two, all around; 0 for most."""
    n = len(x)
    pitch_px = uniform(n, 0.02, 0.05, rng) * side_px
    waves = torch.sin(2 * math.pi * x / pitch_px) + torch.sin(2 * math.pi * y / pitch_px)
    return waves * 0.12 * pitch_px * chance(n, 0.15, rng)
