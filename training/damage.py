"""Composition: photos in, (damaged, clean) pairs out, in batched tensor operations on the training device.

The target of structural damage on a faded, grainy print is that same print without the damage: what age does to the
whole photo (`age_photos`) goes into both pictures of a pair, what hides part of it (`add_damage`) into one.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from restoration.unets import soften
from training.drawing import FAMILIES, INNOCENT
from training.innocent import add_margins, add_objects
from training.jpeg import compress_jpeg
from training.overlays import OverlayBank
from training.randomness import chance, change_some, normal, uniform

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
    share_two_toned: float = 0.0  # light where the overlay's tone is 1 and dark where it is 0, or the other way round
    share_pure: float = 0.05  # white or black throughout
    share_upright: float = 0.0  # lies as the print does, its edges near the print's; else turned by any angle
    colour_cast: float = 0.25  # at most
    goes_on: bool = False  # beyond the overlay it is as at the overlay's edge; else nothing is there


LOOKS: dict[str, FamilyLook] = {
    "strokes": FamilyLook(strength=(0.6, 1.0), zoom=(0.6, 2.5), share_light=0.65, share_pure=0.15),
    "hairlines": FamilyLook(
        strength=(0.4, 1.0), zoom=(0.7, 2.5), share_solid=0.3, share_two_toned=0.4, share_pure=0.1, share_upright=0.4
    ),
    "scratches": FamilyLook(strength=(0.4, 1.0), zoom=(0.7, 2.5), share_solid=0.3, share_pure=0.1),
    "dust": FamilyLook(strength=(0.4, 1.0), zoom=(0.6, 2.5), share_solid=0.5, share_two_toned=0.6, share_pure=0.1),
    "fibres": FamilyLook(strength=(0.3, 1.0), zoom=(0.5, 2.2), share_light=0.5, share_pure=0.15),
    "creases": FamilyLook(
        strength=(0.7, 1.0),
        zoom=(0.8, 2.5),
        share_light=0.92,
        share_solid=0.05,
        share_two_toned=0.6,
        share_upright=0.4,
        colour_cast=0.12,
    ),
    "stains": FamilyLook(
        strength=(0.35, 1.0), zoom=(0.7, 2.5), share_light=0.3, share_solid=0.05, share_multiplied=0.8, share_pure=0.02
    ),
    "holes": FamilyLook(
        strength=(0.97, 1.0),
        zoom=(1.0, 2.0),
        share_light=0.9,
        share_two_toned=0.4,
        share_pure=0.15,
        share_upright=1.0,
        colour_cast=0.12,
        goes_on=True,
    ),
    INNOCENT: FamilyLook(strength=(0.8, 1.0), zoom=(0.7, 2.5), share_light=0.5),
}
"""Sizes are the same for all; how often each is light, and how it lies, was judged beside scans of damaged prints."""


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
        aged = age_photos(add_objects(photos, rng), rng)
        clean = add_margins(add_captions(aged, bank, rng), rng)
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
    """Grain of one or of a few pixels, stronger here and there, and a film's mottling over several."""
    n = len(photos)
    grain = normal(photos[:, :1], rng)
    grain = torch.where(chance(n, 0.5, rng) > 0, soften(grain) * 2.0, grain)
    grain = grain * (1.0 + uniform(n, 0.0, 0.8, rng) * _patches(photos, 4, rng))
    mottling = _patches(photos, min(photos.shape[2:]) // 6, rng) * chance(n, 0.3, rng)
    return photos + grain * uniform(n, 0.0, 0.05, rng) + mottling * uniform(n, 0.0, 0.025, rng)


def _patches(photos: Tensor, num_cells: int, rng: torch.Generator) -> Tensor:
    """(N, 1, H, W) in [-1, 1]: smooth noise, of so many cells to a side."""
    cells = torch.rand(len(photos), 1, num_cells, num_cells, generator=rng, device=rng.device) * 2.0 - 1.0
    return F.interpolate(cells, photos.shape[2:], mode="bilinear", align_corners=False)


def add_captions(photos: Tensor, bank: OverlayBank, rng: torch.Generator) -> Tensor:
    """Writing on a few of them, which is to stay."""
    written = (torch.rand(len(photos), generator=rng, device=rng.device) < 0.06).nonzero()[:, 0]
    if INNOCENT not in bank.overlays or not len(written):
        return photos
    photos = photos.clone()
    photos[written] = add_layer(photos[written], bank.overlays[INNOCENT], LOOKS[INNOCENT], rng)
    return photos


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
    planes = warp_overlays(overlays, n, (photos.shape[2], photos.shape[3]), look, rng)
    opacity, tone = planes[:, :1], planes[:, 1:]
    solid = (opacity * uniform(n, 2.0, 5.0, rng)).clamp(max=1.0)
    is_solid = chance(n, look.share_solid, rng)
    opacity = torch.where(is_solid > 0, solid, opacity * uniform(n, *look.strength, rng))
    covered = paint(tone, look, rng)
    if look.share_multiplied > 0.0:
        is_multiplied = chance(n, look.share_multiplied, rng)
        covered = torch.where(is_multiplied > 0, tint(photos, tone, rng), covered)
    return torch.lerp(photos, covered, opacity)


def paint(tone: Tensor, look: FamilyLook, rng: torch.Generator) -> Tensor:
    """(N, 1, H, W) to (N, 3, H, W) in [0, 1]: what hides a photo, between two colours for each."""
    n = len(tone)
    light = chance(n, look.share_light, rng)
    bright, contrary = _level(light, rng), _level(1.0 - light, rng)
    other = torch.where(chance(n, 0.7, rng) > 0, bright * 0.85, uniform(n, 0.0, 1.0, rng))
    other = torch.where(chance(n, look.share_two_toned, rng) > 0, contrary, other)
    is_pure = chance(n, look.share_pure, rng)
    bright, other = (torch.where(is_pure > 0, light, each) for each in (bright, other))
    colour_cast = uniform(n, 0.0, look.colour_cast, rng) * chance(n, 0.4, rng) * (1.0 - is_pure)
    cast = 1.0 + (torch.rand(n, 3, 1, 1, generator=rng, device=rng.device) - 0.5) * colour_cast
    return ((bright * tone + other * (1.0 - tone)) * cast).clamp(0, 1)


def _level(light: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1): a grey for those that are light and for those that are dark."""
    n = len(light)
    return uniform(n, 0.75, 1.0, rng) * light + uniform(n, 0.0, 0.3, rng) * (1.0 - light)


def tint(photos: Tensor, tone: Tensor, rng: torch.Generator) -> Tensor:
    """The photo under a stain: darker and mostly brown where the tone is 0, bleached, mostly yellow, where it is 1."""
    n = len(photos)
    brown = torch.cat([uniform(n, 0.6, 1.0, rng), uniform(n, 0.45, 0.9, rng), uniform(n, 0.2, 0.8, rng)], dim=1)
    darker = photos * torch.where(chance(n, 0.75, rng) > 0, brown, uniform(n, 0.4, 0.85, rng))
    yellow = torch.cat([uniform(n, 0.5, 1.0, rng), uniform(n, 0.4, 0.9, rng), uniform(n, 0.2, 0.8, rng)], dim=1)
    glow = torch.where(chance(n, 0.6, rng) > 0, yellow, uniform(n, 0.4, 0.9, rng))
    return torch.lerp(darker, photos + (1.0 - photos) * glow, tone)


def warp_overlays(overlays: Tensor, n: int, size: tuple[int, int], look: FamilyLook, rng: torch.Generator) -> Tensor:
    """Choose, rotate, flip, zoom and shift: (N, 2, H, W) float32 in [0, 1]."""
    device = rng.device
    chosen = torch.randint(len(overlays), (n,), generator=rng, device=device)
    is_upright = chance(n, look.share_upright, rng).flatten()
    turn = torch.rand(n, generator=rng, device=device) * 2.0 * math.pi
    quarter = (turn * (2.0 / math.pi)).floor() * (math.pi / 2.0)
    askew = torch.randn(n, generator=rng, device=device) * 0.02
    angle = torch.where(is_upright > 0, quarter + askew, turn)
    extent = 1.0 / torch.exp(uniform(n, math.log(look.zoom[0]), math.log(look.zoom[1]), rng).flatten())
    flip = 1.0 - 2.0 * chance(n, 0.5, rng).flatten()
    shift = _shift(extent[:, None], is_upright[:, None], rng)
    cos, sin = torch.cos(angle) * extent, torch.sin(angle) * extent
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, shift[:, 0]], dim=1), torch.stack([sin * flip, cos, shift[:, 1]], dim=1)], dim=1
    )
    grid = F.affine_grid(theta, [n, 2, *size], align_corners=False)
    planes = overlays[chosen].float()
    beyond = "border" if look.goes_on else "zeros"
    sampled = F.grid_sample(planes, grid, mode="bilinear", padding_mode=beyond, align_corners=False)
    return sampled.div_(255.0)


def _shift(extent: Tensor, is_upright: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 2): where on the overlay, which is 2 wide, the middle of the crop lies. extent, is_upright: (N, 1).

    A crop that is smaller than an overlay looks at the part of it that has something to show more often than not. An
    upright one stays on the overlay, half of them at an edge of it.
    """
    place = torch.rand(len(extent), 2, generator=rng, device=rng.device) * 2.0 - 1.0
    anywhere = place * (1.1 - 0.6 * extent.clamp(max=1.0))
    upright = (2.0 * place).clamp(-1.0, 1.0) * (1.02 - extent).clamp(min=0.03)
    return torch.where(is_upright > 0, upright, anywhere)
