"""Small bright things, drawn into both pictures of a pair, which look like specks: snow, stars, highlights.

What tells them from dust is light: they are soft, round or bent along a form, and white in their middle; a highlight
lies where the photo is bright already or smooth and dark, a star in a night. All functions take and return (N, 3, H, W)
float32 in [0, 1].
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.randomness import chance, uniform, uniform_each

NUM_FLAKES = 48
NUM_STARS = 256
NUM_GLINTS = 8  # at most; all are drawn side by side: (N, 8, H, W)
CELL_PX = 4
"""Side of the squares by which a highlight's place is chosen."""


def colourfulness(photos: Tensor) -> Tensor:
    """(N, 1, 1, 1) in [0, 1]: 0 for a grey photo, on which nothing that is drawn has a colour."""
    spread = photos.amax(dim=1, keepdim=True) - photos.amin(dim=1, keepdim=True)
    return (10.0 * spread.mean(dim=(2, 3), keepdim=True)).clamp(max=1.0)


# --- snow and stars ---------------------------------------------------------------------------------------------------


def add_snow(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Flakes or lights out of focus: round, soft, light, of about one size."""
    n = len(photos)
    sizes_px = uniform(n, 1.2, 2.5, rng) * uniform_each(n, NUM_FLAKES, 0.8, 1.2, rng)
    strengths = uniform(n, 0.5, 0.95, rng) * uniform_each(n, NUM_FLAKES, 0.7, 1.0, rng)
    flakes = _round_lights(_scatter(photos, NUM_FLAKES, rng), sizes_px, strengths, photos).clamp(max=1.0)
    return torch.lerp(photos, uniform(n, 0.85, 1.0, rng).expand_as(photos), flakes)


def add_stars(photos: Tensor, rng: torch.Generator) -> Tensor:
    """The photo by night, with stars or lamps: many faint, few bright, a power of how many are as bright.

    All are as sharp as each other; what is brighter than white fills a larger disc, and a halo.
    """
    n = len(photos)
    brightness = photos.mean(dim=(1, 2, 3), keepdim=True).clamp(min=0.01)
    night = photos * (uniform(n, 0.05, 0.25, rng) / brightness).clamp(max=1.0)
    centres = _scatter(photos, NUM_STARS, rng)
    rank = uniform_each(n, NUM_STARS, 1.0 / NUM_STARS, 1.0, rng)
    light = uniform(n, 0.03, 0.12, rng) * rank.pow(-uniform(n, 0.5, 0.9, rng))
    light = light * (rank < torch.exp(uniform(n, math.log(0.15), 0.0, rng)))  # the faint ones are missing in some
    light = light * _in_sky(night, centres, rng)
    warmth = uniform(n, 0.0, 0.5, rng) * colourfulness(photos) * uniform_each(n, NUM_STARS, -0.5, 1.0, rng)
    light = light * torch.cat([1.0 + warmth, torch.ones_like(warmth), 1.0 - warmth], dim=2)  # (N, K, 3, 1)
    size_px = torch.exp(uniform(n, math.log(0.5), math.log(1.2), rng)).expand(-1, NUM_STARS, -1, -1)
    halo = uniform(n, 0.02, 0.08, rng) * (light - 0.5).clamp(min=0.0, max=4.0)
    shine = _round_lights(centres, size_px, light, photos) + _round_lights(centres, 4.5 * size_px, halo, photos)
    return (night + (1.0 - night) * shine).clamp(0, 1)


def _scatter(photos: Tensor, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places anywhere on each photo, y and x in pixels, (N, K, 1, 1) each."""
    n, (height, width) = len(photos), photos.shape[2:]
    return uniform_each(n, num, 0.0, height, rng), uniform_each(n, num, 0.0, width, rng)


def _in_sky(night: Tensor, centres: tuple[Tensor, Tensor], rng: torch.Generator) -> Tensor:
    """(N, K, 1, 1), 1 or 0: in most photos only what is darker than the rest has stars, or only what is lighter."""
    n = len(night)
    cells = F.avg_pool2d(night.mean(dim=1, keepdim=True), CELL_PX, ceil_mode=True)
    row, column = ((centre / CELL_PX).long() for centre in centres)
    here = cells.flatten(1).gather(1, (row * cells.shape[3] + column).flatten(1))[..., None, None]
    is_darker = here <= cells.mean(dim=(2, 3), keepdim=True)
    return ((is_darker == (chance(n, 0.6, rng) > 0)) | (chance(n, 0.3, rng) > 0)).float()


def _round_lights(centres: tuple[Tensor, Tensor], sizes_px: Tensor, light: Tensor, photos: Tensor) -> Tensor:
    """(N, C, H, W), sums of round Gaussians. centres, sizes_px: (N, K, 1, 1); light in the middle: (N, K, C, 1)."""
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(extent, device=photos.device) - centre) / sizes_px).square())
        for extent, centre in zip(photos.shape[2:], centres, strict=True)
    )
    # a round Gaussian is the product of one along each axis: (N, C, H, K) @ (N, 1, K, W)
    return (rows * light).permute(0, 2, 3, 1) @ columns.transpose(1, 2)


# --- highlights -------------------------------------------------------------------------------------------------------


def add_highlights(photos: Tensor, rng: torch.Generator) -> Tensor:
    """What eyes, glass, metal, wet leather mirror: one to eight glints on each photo, on some a blown highlight."""
    n = len(photos)
    centres, angles, on_edge = _places_that_shine(photos, rng)
    glints, sheen = _draw_glints(photos, centres, angles, on_edge, rng)
    lamp = _shine_lamp(photos, centres, angles, rng) * chance(n, 0.3, rng)
    lit = photos * (1.0 + lamp + sheen)
    overflow = (lit.mean(dim=1, keepdim=True) - photos.mean(dim=1, keepdim=True).clamp(min=0.8)).clamp(0, 1)
    lit = torch.lerp(lit.clamp(max=1.0), torch.ones_like(lit), overflow)  # film and sensors lose the colour, too
    return torch.lerp(lit, torch.maximum(lit, uniform(n, 0.92, 1.0, rng)), glints)


def _places_that_shine(photos: Tensor, rng: torch.Generator) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """y and x in pixels, the angle of the form there, whether there is an edge: (N, 8, 1, 1) each.

    Brighter than what is around, or smooth and dark among detail, as eyes are; mostly near each other, on one thing.
    """
    n = len(photos)
    cells = F.avg_pool2d(photos.mean(dim=1, keepdim=True), CELL_PX)
    near, around = (F.avg_pool2d(cells, side, stride=1, padding=side // 2, count_include_pad=False) for side in (3, 9))
    rise = cells - around
    bright = (rise - 0.02).clamp(min=0.0) * cells
    detail = F.avg_pool2d(rise.abs(), 9, stride=1, padding=4)
    calm = (0.35 - cells).clamp(min=0.0) * torch.exp((cells - near).abs() / -0.03) * detail
    bright, calm = (each / each.mean(dim=(2, 3), keepdim=True).clamp(min=1e-4) for each in (bright, calm))
    likely = bright + 0.5 * calm
    first = _draw_cells(likely, 1, rng)
    reach = uniform(n, 0.05, 0.6, rng)
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(extent, device=photos.device) - cell) / (reach * extent)).square())
        for extent, cell in zip(cells.shape[2:], _row_and_column(first, cells), strict=True)
    )
    within = rows.transpose(2, 3) * columns
    chosen = _draw_cells(likely * within, NUM_GLINTS, rng)
    chosen = torch.cat([first, chosen[:, 1:]], dim=1)
    y, x = (CELL_PX * (cell + uniform_each(n, NUM_GLINTS, 0.0, 1.0, rng)) for cell in _row_and_column(chosen, cells))
    slope_y, slope_x = torch.gradient(near, dim=(2, 3))
    steepness = torch.hypot(slope_y, slope_x)
    there_y, there_x, steep = (
        plane.flatten(1).gather(1, chosen[:, :, 0, 0])[..., None, None] for plane in (slope_y, slope_x, steepness)
    )
    on_edge = steep > steepness.mean(dim=(2, 3), keepdim=True).clamp(min=0.02)
    return (y, x), torch.atan2(there_x, -there_y), on_edge  # a form runs across its slope


def _draw_cells(likely: Tensor, num: int, rng: torch.Generator) -> Tensor:
    """likely: (N, 1, H, W); returns (N, K, 1, 1) int64, indices into its H * W."""
    return torch.multinomial(likely.flatten(1) + 1e-6, num, replacement=True, generator=rng)[:, :, None, None]


def _row_and_column(index: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    return index // cells.shape[3], index % cells.shape[3]


def _draw_glints(
    photos: Tensor, centres: tuple[Tensor, Tensor], angles: Tensor, on_edge: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Compact blobs, along edges short bent streaks, with a halo; how much lighter what is around them is.

    (N, 1, H, W) each, the first in [0, 1].
    """
    n = len(photos)
    along, across = _turned(photos, centres, angles + uniform_each(n, NUM_GLINTS, -0.3, 0.3, rng))
    size_px = torch.exp(uniform(n, math.log(0.6), math.log(2.2), rng))
    sizes_px = size_px * torch.exp(uniform_each(n, NUM_GLINTS, -0.6, 0.5, rng))
    is_streak = on_edge & (uniform_each(n, NUM_GLINTS, 0.0, 1.0, rng) < uniform(n, -0.2, 1.0, rng))
    stretch = torch.where(
        is_streak, uniform_each(n, NUM_GLINTS, 2.0, 5.0, rng), uniform_each(n, NUM_GLINTS, 1.0, 1.7, rng)
    )
    across = across - uniform_each(n, NUM_GLINTS, -0.12, 0.12, rng) * along.square() / (stretch * sizes_px)
    away = (along / (stretch * sizes_px)).square() + (across / sizes_px).square()
    away = torch.where(_is_there(n, rng) > 0, away, math.inf)
    middle = (uniform_each(n, NUM_GLINTS, 1.2, 4.0, rng) * torch.exp(-0.5 * away)).clamp(max=1.0)
    glints = (middle * uniform_each(n, NUM_GLINTS, 0.6, 1.0, rng)).amax(dim=1, keepdim=True)
    nearest = away.amin(dim=1, keepdim=True).sqrt()
    halo, sheen = uniform(n, 0.02, 0.16, rng) * torch.exp(-0.5 * nearest), uniform(n, 0.0, 0.7, rng)
    return torch.maximum(glints, halo), sheen * torch.exp(-0.2 * nearest)


def _is_there(n: int, rng: torch.Generator) -> Tensor:
    """(N, 8, 1, 1), 1 for the first one to eight glints of each photo, else 0."""
    num = torch.randint(1, NUM_GLINTS + 1, (n, 1, 1, 1), generator=rng, device=rng.device)
    return (torch.arange(NUM_GLINTS, device=rng.device).view(1, -1, 1, 1) < num).float()


def _shine_lamp(photos: Tensor, centres: tuple[Tensor, Tensor], angles: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 1, H, W): how much more light falls around the first centre; what is bright there turns white, gradually."""
    n, side_px = len(photos), min(photos.shape[2:])
    along, across = _turned(photos, (centres[0][:, :1], centres[1][:, :1]), angles[:, :1])
    size_px = torch.exp(uniform(n, math.log(0.03), math.log(0.12), rng)) * side_px
    away = (along / (size_px * uniform(n, 1.0, 2.5, rng))).square() + (across / size_px).square()
    return torch.exp(uniform(n, -0.4, 1.3, rng) - 0.5 * away)


def _turned(photos: Tensor, centres: tuple[Tensor, Tensor], angles: Tensor) -> tuple[Tensor, Tensor]:
    """Along and across, (N, K, H, W) each, in pixels from each centre. centres, angles: (N, K, 1, 1)."""
    y, x = (torch.arange(extent, device=photos.device) for extent in photos.shape[2:])
    y, x = y.view(1, 1, -1, 1) - centres[0], x.view(1, 1, 1, -1) - centres[1]
    return torch.cos(angles) * x + torch.sin(angles) * y, torch.cos(angles) * y - torch.sin(angles) * x
