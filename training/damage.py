"""Composition: photos in, (damaged, clean) pairs out, in batched tensor operations on the training device.

The target of structural damage on a faded, grainy print is that same print without the damage: what age does to the
whole photo (`age_photos`) goes into both pictures of a pair, what hides part of it (`add_damage`) into one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from restoration.generator import soften
from training.jpeg import compress_jpeg
from training.overlays import FAMILIES, INNOCENT, OverlayBank

VISIBLE = 8.0 / 255.0
"""A change of at least this is damage that the detector must find."""
INVISIBLE = 1.5 / 255.0
"""A change below this is none; in between, the detector's answer does not count."""
ACTIVITY_PX = 8
"""Side of the squares over which a photo's own detail is measured, which can hide a change."""


@dataclass(frozen=True)
class FamilyLook:
    """How one family is laid onto a photo: [low, high] each."""

    strength: tuple[float, float] = (0.3, 1.0)
    zoom: tuple[float, float] = (0.4, 2.0)  # overlay's side over the photo's short side
    share_light: float = 0.6  # else dark
    share_solid: float = 0.4  # opaque throughout, with hard edges
    share_multiplied: float = 0.0  # a stain tints what is under it, paint covers it


LOOKS: dict[str, FamilyLook] = {
    "strokes": FamilyLook(strength=(0.6, 1.0), zoom=(0.6, 2.5), share_light=0.65),
    "hairlines": FamilyLook(strength=(0.25, 1.0), zoom=(0.7, 2.5)),
    "scratches": FamilyLook(strength=(0.3, 1.0), zoom=(0.7, 2.5)),
    "dust": FamilyLook(strength=(0.4, 1.0), zoom=(0.6, 2.5), share_light=0.5, share_solid=0.6),
    "fibres": FamilyLook(strength=(0.3, 1.0), zoom=(0.5, 2.2), share_light=0.5),
    "creases": FamilyLook(strength=(0.6, 1.0), zoom=(0.8, 2.5), share_light=0.8, share_solid=0.2),
    "stains": FamilyLook(strength=(0.3, 1.0), zoom=(0.7, 2.5), share_light=0.3, share_solid=0.1, share_multiplied=0.7),
    "holes": FamilyLook(strength=(0.97, 1.0), zoom=(0.9, 2.0)),
    INNOCENT: FamilyLook(strength=(0.8, 1.0), zoom=(0.7, 2.5), share_light=0.5),
}


@dataclass(frozen=True)
class DamageConfig:
    """What is done to the photos, and how often."""

    families: tuple[str, ...] = FAMILIES
    family_weights: dict[str, float] = field(
        default_factory=lambda: {"strokes": 2.0, "hairlines": 2.0, "holes": 0.8, "scratches": 1.5}
    )
    """How often a family is drawn, relative to 1 for those that are not named."""
    num_layers_shares: tuple[float, ...] = (0.2, 0.4, 0.25, 0.15)
    """Shares of samples with 0, 1, 2, 3 layers of damage."""
    ageing: bool = True
    """Grey, sepia, faded and grainy photos, in both pictures of a pair."""


@dataclass(frozen=True)
class Pairs:
    """damaged, clean: (N, 3, H, W) float32 in [0, 1]; see `damage_mask` for mask and counts (N, 1, H, W)."""

    damaged: Tensor
    clean: Tensor
    mask: Tensor
    counts: Tensor

    def to(self, device: torch.device) -> "Pairs":
        return Pairs(*(plane.to(device, non_blocking=True) for plane in vars(self).values()))


def make_pairs(photos: Tensor, bank: OverlayBank, config: DamageConfig, rng: torch.Generator) -> Pairs:
    """photos: (N, 3, H, W) float32 in [0, 1], whose short side shows about half to all of a photo."""
    clean = photos
    if config.ageing:
        clean = add_borders(add_captions(age_photos(photos, rng), bank, rng), rng)
    damaged = add_damage(clean, bank, config, rng)
    if config.ageing:
        clean, damaged = add_scan_noise(clean, damaged, rng)
    return pairs_from(damaged, clean)


def pairs_from(damaged: Tensor, clean: Tensor) -> Pairs:
    mask, counts = damage_mask(damaged, clean)
    return Pairs(damaged, clean, mask, counts)


def damage_mask(damaged: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1, H, W) float32 each: 1 where the two differ visibly; 1 where a detector's answer counts.

    Grain and texture hide a faint change that is as small as they are: there the answer does not count.
    """
    difference = damaged - clean
    change = difference.abs().amax(dim=1, keepdim=True)
    activity, wide_change = (_blurred_widely(each) for each in (detail_of(clean), to_grey(difference)))
    is_hidden = (change < activity) & (wide_change.abs() < activity / 3.0)
    mask = (change >= VISIBLE) & ~is_hidden
    return mask.float(), (mask | (change < INVISIBLE)).float()


def detail_of(photos: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W): how much a pixel differs from its neighbours' mean: grain, texture, edges."""
    grey = to_grey(photos)
    return (grey - soften(grey)).abs()


def _blurred_widely(plane: Tensor) -> Tensor:
    """(N, 1, H, W): means over squares, interpolated."""
    means = F.avg_pool2d(plane, ACTIVITY_PX, ceil_mode=True, count_include_pad=False)
    return F.interpolate(means, scale_factor=ACTIVITY_PX, mode="bilinear", align_corners=False)[
        :, :, : plane.shape[2], : plane.shape[3]
    ]


# --- random numbers ---------------------------------------------------------------------------------------------------


def uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1) float32, broadcast over a batch of pictures."""
    return torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) * (high - low) + low


def chance(n: int, probability: float, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1) float32, 1 with the given probability, else 0."""
    return (torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < probability).float()


def change_some(photos: Tensor, probability: float, rng: torch.Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to a random part of the photos: (N, C, H, W) to the same shape."""
    chosen = (torch.rand(len(photos), generator=rng, device=rng.device) < probability).nonzero()[:, 0]
    if not len(chosen):
        return photos
    return photos.index_copy(0, chosen, change(photos[chosen]))


def normal(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=rng.device)


# --- age: both pictures -----------------------------------------------------------------------------------------------

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def to_grey(photos: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W)."""
    weights = torch.tensor(LUMA, device=photos.device).view(1, 3, 1, 1)
    return (photos * weights).sum(dim=1, keepdim=True)


def age_photos(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Some photos become negatives, grey, sepia, harder or faded, soft, sharp or grainy; most keep their colours."""
    for probability, age in (
        (0.05, invert),
        (0.2, expose),
        (0.4, tone_down),
        (0.3, fade_out),
        (0.3, defocus),
        (0.15, sharpen),
        (0.4, add_grain),
    ):
        photos = change_some(photos, probability, rng, partial(age, rng=rng))
    return photos.clamp(0, 1)


def invert(photos: Tensor, rng: torch.Generator) -> Tensor:
    """A negative."""
    return 1.0 - photos


def defocus(photos: Tensor, rng: torch.Generator) -> Tensor:
    """By up to a pixel, half of them by up to two."""
    softer = soften(photos)
    softer = torch.where(chance(len(photos), 0.5, rng) > 0, soften(softer), softer)
    return torch.lerp(photos, softer, uniform(len(photos), 0.3, 1.0, rng))


def sharpen(photos: Tensor, rng: torch.Generator) -> Tensor:
    """As scanners and cameras do: hard edges with a rim, which are no scratches."""
    return photos + (photos - soften(soften(photos))) * uniform(len(photos), 0.3, 1.5, rng)


def expose(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Overexposed or printed hard: collars and skies without detail, which are not holes."""
    n = len(photos)
    exposed = (photos - uniform(n, 0.3, 0.6, rng)) * uniform(n, 1.0, 1.9, rng) + uniform(n, 0.4, 0.7, rng)
    return exposed.clamp(0, 1)


def tone_down(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Grey, half of them sepia."""
    n = len(photos)
    sepia = torch.cat([uniform(n, 0.98, 1.08, rng), uniform(n, 0.92, 1.0, rng), uniform(n, 0.7, 0.95, rng)], dim=1)
    return (to_grey(photos) * torch.where(chance(n, 0.5, rng) > 0, sepia, torch.ones_like(sepia))).clamp(0, 1)


def fade_out(photos: Tensor, rng: torch.Generator) -> Tensor:
    black, white = uniform(len(photos), 0.02, 0.25, rng), uniform(len(photos), 0.65, 1.0, rng)
    return black + photos * (white - black)


def add_grain(photos: Tensor, rng: torch.Generator) -> Tensor:
    """Grain of one or of a few pixels."""
    n = len(photos)
    grain = normal(photos[:, :1], rng)
    grain = torch.where(chance(n, 0.5, rng) > 0, soften(grain) * 2.0, grain)
    return photos + grain * uniform(n, 0.0, 0.05, rng)


def add_captions(photos: Tensor, bank: OverlayBank, rng: torch.Generator) -> Tensor:
    """Writing on a few of them, which is to stay."""
    written = (torch.rand(len(photos), generator=rng, device=rng.device) < 0.06).nonzero()[:, 0]
    if INNOCENT not in bank.overlays or not len(written):
        return photos
    photos = photos.clone()
    photos[written] = add_layer(photos[written], bank.overlays[INNOCENT], LOOKS[INNOCENT], rng)
    return photos


def add_borders(photos: Tensor, rng: torch.Generator) -> Tensor:
    """The print's own border, or the scanner's lid beyond it, along some edges of some photos: plain, and to stay."""
    n, _, height, width = photos.shape
    device = photos.device
    has_border = chance(n, 0.12, rng)
    depths = [uniform(n, -0.12, 0.12, rng).clamp(min=0.0) * has_border for _ in range(4)]
    y = torch.linspace(0, 1, height, device=device).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width, device=device).view(1, 1, 1, -1)
    is_border = (y < depths[0]) | (y > 1.0 - depths[1]) | (x < depths[2]) | (x > 1.0 - depths[3])
    tone = torch.where(chance(n, 0.7, rng) > 0, uniform(n, 0.75, 1.0, rng), uniform(n, 0.0, 0.15, rng))
    cream = torch.cat([torch.ones(n, 1, 1, 1, device=device), *(uniform(n, 0.85, 1.0, rng) for _ in range(2))], dim=1)
    colour = tone * torch.where(chance(n, 0.3, rng) > 0, cream, torch.ones_like(cream))
    return torch.where(is_border, colour, photos)


def add_scan_noise(clean: Tensor, damaged: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the scanner adds lies on both, the damage included: slight blur, noise, JPEG."""
    both = torch.cat([clean, damaged], dim=1)  # (N, 6, H, W): each pair is treated alike
    for probability, scan in ((0.3, defocus), (0.3, _add_noise), (0.35, _compress)):
        both = change_some(both, probability, rng, partial(scan, rng=rng))
    return both[:, :3].contiguous(), both[:, 3:].contiguous()


def _add_noise(both: Tensor, rng: torch.Generator) -> Tensor:
    noise = normal(both[:, :3], rng) * uniform(len(both), 0.0, 0.025, rng)
    return (both + noise.repeat(1, 2, 1, 1)).clamp(0, 1)


def _compress(both: Tensor, rng: torch.Generator) -> Tensor:
    quality = uniform(len(both), 40.0, 95.0, rng)
    return torch.cat([compress_jpeg(picture, quality) for picture in (both[:, :3], both[:, 3:])], dim=1)


# --- damage: one of the two -------------------------------------------------------------------------------------------


def add_damage(photos: Tensor, bank: OverlayBank, config: DamageConfig, rng: torch.Generator) -> Tensor:
    """Lay 0 to 3 overlays of random families, in random order, onto each photo."""
    families = [family for family in config.families if family in bank.overlays]
    weights = torch.tensor([config.family_weights.get(family, 1.0) for family in families], device=rng.device)
    shares = torch.tensor(config.num_layers_shares, device=rng.device)
    num_layers = torch.multinomial(shares, photos.shape[0], replacement=True, generator=rng)
    damaged = photos.clone()
    for layer in range(len(config.num_layers_shares) - 1):
        drawn = torch.multinomial(weights, photos.shape[0], replacement=True, generator=rng)
        drawn[num_layers <= layer] = -1
        for index, family in enumerate(families):
            rows = (drawn == index).nonzero()[:, 0]
            if len(rows):
                damaged[rows] = add_layer(damaged[rows], bank.overlays[family], LOOKS[family], rng)
    return damaged


def add_layer(photos: Tensor, overlays: Tensor, look: FamilyLook, rng: torch.Generator) -> Tensor:
    """One overlay onto each photo. overlays: (K, 2, S, S) uint8."""
    n = photos.shape[0]
    planes = warp_overlays(overlays, n, (photos.shape[2], photos.shape[3]), look.zoom, rng)
    opacity, tone = planes[:, :1], planes[:, 1:]
    is_solid = chance(n, look.share_solid, rng)
    solid = (opacity * uniform(n, 2.0, 5.0, rng)).clamp(max=1.0)
    opacity = torch.where(is_solid > 0, solid, opacity * uniform(n, *look.strength, rng))
    light = chance(n, look.share_light, rng)
    bright = uniform(n, 0.75, 1.0, rng) * light + uniform(n, 0.0, 0.3, rng) * (1.0 - light)
    other = torch.where(chance(n, 0.7, rng) > 0, bright * 0.85, uniform(n, 0.0, 1.0, rng))
    colour_cast = uniform(n, 0.0, 0.35, rng) * chance(n, 0.4, rng)
    is_pure = chance(n, 0.15, rng)  # white or black throughout
    bright, other = (torch.where(is_pure > 0, light, each) for each in (bright, other))
    colour_cast = colour_cast * (1.0 - is_pure)
    tint = 1.0 + (torch.rand(n, 3, 1, 1, generator=rng, device=rng.device) - 0.5) * colour_cast
    paint = ((bright * tone + other * (1.0 - tone)) * tint).clamp(0, 1)
    brown = torch.cat([uniform(n, 0.6, 1.0, rng), uniform(n, 0.45, 0.9, rng), uniform(n, 0.2, 0.8, rng)], dim=1)
    tinted = photos * torch.where(chance(n, 0.75, rng) > 0, brown, uniform(n, 0.4, 0.85, rng))
    tinted = tinted + (1.0 - tinted) * 0.5 * tone * light  # bleached inside
    is_multiplied = chance(n, look.share_multiplied, rng)
    return torch.lerp(photos, torch.where(is_multiplied > 0, tinted, paint), opacity)


def warp_overlays(
    overlays: Tensor, n: int, size: tuple[int, int], zoom: tuple[float, float], rng: torch.Generator
) -> Tensor:
    """Choose, rotate, flip, zoom and shift: (N, 2, H, W) float32 in [0, 1]."""
    device = rng.device
    chosen = torch.randint(len(overlays), (n,), generator=rng, device=device)
    angle = uniform(n, 0.0, 2.0 * math.pi, rng).flatten()
    extent = 1.0 / torch.exp(uniform(n, math.log(zoom[0]), math.log(zoom[1]), rng).flatten())
    flip = 1.0 - 2.0 * chance(n, 0.5, rng).flatten()
    # A crop that is smaller than an overlay looks at the part of it that has something to show more often than not
    shift = (torch.rand(n, 2, generator=rng, device=device) - 0.5) * 2.0 * (1.1 - 0.6 * extent.clamp(max=1.0))[:, None]
    cos, sin = torch.cos(angle) * extent, torch.sin(angle) * extent
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, shift[:, 0]], dim=1), torch.stack([sin * flip, cos, shift[:, 1]], dim=1)], dim=1
    )
    grid = F.affine_grid(theta, [n, 2, *size], align_corners=False)
    planes = overlays[chosen].float().div_(255.0)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
