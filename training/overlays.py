"""The bank of damage: every overlay that composition draws from, rendered once and kept in memory.

An overlay is two planes: *opacity*, how much of the photo it hides, and *tone*, where between its two colours it lies.
Sizes are relative to the overlay's side, which stands for the short side of a photo. Procedural families are drawn
here; others come from a folder of greyscale images (white is damage), by the name of their subfolder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restoration.errors import DataError
from training.splits import list_images, select_split

FAMILIES = ("strokes", "hairlines", "scratches", "dust", "fibres", "creases", "stains", "holes")
INNOCENT = "captions"
"""What lies on a photo and is no damage: writing and printed dates. The bank holds it beside the families."""
IN_BANK = (*FAMILIES, INNOCENT)

FAMILY_OF_FOLDER = {
    "dirt": "dust",
    "spots": "dust",
    "sprinkles": "dust",
    "hair": "fibres",
    "hair-short": "fibres",
    "lint": "fibres",
    "scratches": "scratches",
    "stain": "stains",
    "dots": "strokes",
    "smut": "holes",
    "paper": None,  # whole sheets of texture, no overlays
}
"""Which family an overlay folder feeds; a folder that is not named here feeds `dust`."""


@dataclass(frozen=True)
class OverlayBank:
    """Per family (K, 2, S, S) uint8: opacity and tone."""

    overlays: dict[str, Tensor]

    def to(self, device: torch.device) -> "OverlayBank":
        return OverlayBank({family: planes.to(device) for family, planes in self.overlays.items()})


def build_bank(
    split: Literal["train", "evaluation"],
    *,
    overlay_folder: Path | None = None,
    held_out_share: float = 0.1,
    families: tuple[str, ...] = IN_BANK,
    side_px: int = 320,
    num_per_family: int = 160,
    seed: int = 0,
) -> OverlayBank:
    """Render the bank for training, or for the evaluation: from all overlay files that are held out.

    The two share neither a file nor a random stream.

    Raises DataError if the overlay folder holds no image, or one that cannot be read.
    """
    stream = {"train": 0, "evaluation": 1}[split]
    overlays = {}
    for family in families:
        rng = np.random.default_rng([seed, stream, IN_BANK.index(family)])
        drawn = [draw_overlay(family, side_px, rng) for _ in range(num_per_family)]
        read = _read_overlays(overlay_folder, family, split, held_out_share, side_px, num_per_family, rng)
        overlays[family] = torch.from_numpy(np.stack(drawn + read))
    return OverlayBank(overlays)


def _read_overlays(
    folder: Path | None,
    family: str,
    split: Literal["train", "evaluation"],
    held_out_share: float,
    side_px: int,
    num_most: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    if folder is None:
        return []
    everything = list_images(folder)
    if not everything:
        raise DataError(f"{folder} is not a folder that holds damage overlays; name one, or leave overlays out")
    train = set(select_split(everything, folder, "train", held_out_share))
    paths = [path for path in everything if (path in train) == (split == "train")]
    paths = [path for path in paths if FAMILY_OF_FOLDER.get(path.parent.name, "dust") == family]
    chosen = rng.permutation(len(paths))[:num_most]
    return [read_overlay(paths[index], side_px, rng) for index in chosen]


def read_overlay(path: Path, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(2, S, S) uint8 from a greyscale image whose white is damage. Raises DataError if it cannot be read."""
    try:
        with Image.open(path) as image:
            opacity = np.asarray(image.convert("L").resize((side_px, side_px), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an overlay ({error}); repair it or take it out") from error
    return np.stack([opacity, to_levels(0.6 + 0.4 * soft_noise(side_px, 0.1, rng))])


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw_overlay(family: str, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(2, S, S) uint8, drawn by the family's procedure."""
    opacity, tone = DRAW[family](side_px, rng)
    return np.stack([to_levels(opacity), to_levels(tone)])


def to_levels(plane: np.ndarray) -> np.ndarray:
    levels: np.ndarray = (np.clip(plane, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return levels


def soft_noise(side_px: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: smooth noise whose features are `scale` of the side."""
    cells = max(2, round(1.0 / scale))
    coarse = rng.random((cells + 3, cells + 3), dtype=np.float32)
    noise = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    low, high = float(noise.min()), float(noise.max())
    stretched: np.ndarray = (noise - low) / max(high - low, 1e-6)
    return stretched


def rough_noise(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: noise at several scales, for ragged outlines."""
    octaves = [(0.25, 0.5), (0.08, 0.3), (0.025, 0.2)]
    noise: np.ndarray = np.sum([weight * soft_noise(side_px, scale, rng) for scale, weight in octaves], axis=0)
    return noise


def smooth_step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    step: np.ndarray = t * t * (3.0 - 2.0 * t)
    return step


def random_path(side_px: int, rng: np.random.Generator, *, length: float, bend: float, jitter: float) -> np.ndarray:
    """(P, 2) float32 points of a random walk. length and jitter relative to the side; bend: radians per step."""
    num_points = 48
    step_px = length * side_px / num_points
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, num_points) + rng.normal(0, bend / 2))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * step_px, axis=0)
    points += rng.normal(0, jitter * side_px, points.shape)
    placed: np.ndarray = (points - points.mean(axis=0) + rng.uniform(0.15, 0.85, 2) * side_px).astype(np.float32)
    return placed


def draw_path(canvas: np.ndarray, points: np.ndarray, width_px: float, value: float = 1.0) -> None:
    """An anti-aliased line; below one pixel the width becomes opacity."""
    strength = value * min(1.0, width_px)
    fixed = (points * 16).astype(np.int32).reshape(-1, 1, 2)
    line = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(line, [fixed], False, 255, max(1, round(width_px)), cv2.LINE_AA, shift=4)
    np.maximum(canvas, line.astype(np.float32) * np.float32(strength / 255.0), out=canvas)


def draw_strokes(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The original's damage: thick, broken, hand-drawn strokes and dabs."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 5)):
        width_px = side_px * rng.uniform(0.008, 0.06)
        if rng.random() < 0.3:  # a dab
            centre = rng.uniform(0.1, 0.9, 2) * side_px
            axes = rng.uniform(0.5, 1.5, 2) * width_px
            dab = (centre.tolist(), (axes * 2).tolist(), float(rng.uniform(0, 180)))
            cv2.ellipse(opacity, dab, 1.0, cv2.FILLED, cv2.LINE_AA)
        else:
            path = random_path(
                side_px, rng, length=rng.uniform(0.2, 1.2), bend=rng.uniform(0.02, 0.25), jitter=rng.uniform(0, 0.004)
            )
            draw_path(opacity, path, width_px)
    opacity = cv2.GaussianBlur(opacity, (0, 0), side_px * rng.uniform(0.001, 0.004))
    grain = soft_noise(side_px, rng.uniform(0.01, 0.05), rng)  # a dry brush leaves gaps
    opacity = smooth_step(0.3, 0.6, opacity * (1.0 - rng.uniform(0, 0.6) * grain))
    return opacity, 0.75 + 0.25 * rough_noise(side_px, rng)


def draw_hairlines(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Long, thin scratches, often several in one direction, fading along their way."""
    opacity = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 7)):
        path = random_path(
            side_px, rng, length=rng.uniform(0.3, 2.2), bend=rng.uniform(0.0, 0.06), jitter=rng.uniform(0, 0.0015)
        )
        draw_path(opacity, path, rng.uniform(0.5, 2.6), rng.uniform(0.4, 1.0))
    if rng.random() < 0.35:  # a film's scratches run along the film
        for _ in range(rng.integers(1, 6)):
            x = rng.uniform(0, side_px) + np.cumsum(rng.normal(0, 0.15, 40))
            path = np.stack([x, np.linspace(-5, side_px + 5, 40)], axis=1).astype(np.float32)
            draw_path(opacity, path, rng.uniform(0.5, 1.8), rng.uniform(0.4, 1.0))
    fading = smooth_step(0.15, 0.6, soft_noise(side_px, 0.15, rng) + rng.uniform(0, 0.5))
    opacity *= 0.25 + 0.75 * fading
    return opacity, np.full_like(opacity, 0.95)


def draw_creases(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Creases, straight, and cracks, which branch and fray: a white, broken core where the emulsion is gone, in a
    shaded band."""
    core: np.ndarray = np.zeros((side_px, side_px), np.float32)
    band = np.zeros_like(core)
    is_cracked, is_frayed = rng.random() < 0.6, rng.random() < 0.6
    for _ in range(rng.integers(1, 6) if is_frayed else rng.integers(1, 4)):
        if is_cracked:
            path = random_path(side_px, rng, length=rng.uniform(0.3, 1.4), bend=0.18, jitter=rng.uniform(0.002, 0.006))
        else:
            path = random_path(side_px, rng, length=1.8, bend=0.015, jitter=rng.uniform(0.0005, 0.002))
        width_px = side_px * rng.uniform(0.003, 0.014)
        draw_path(core, path, width_px)
        draw_path(band, path, side_px * rng.uniform(0.02, 0.06))
        if is_frayed:
            _fray(core, path, width_px, rng)
        for _ in range(rng.integers(0, 4) if is_cracked else 0):
            branch = random_path(side_px, rng, length=rng.uniform(0.1, 0.4), bend=0.2, jitter=0.004)
            branch += path[rng.integers(len(path))] - branch[0]
            draw_path(core, branch, side_px * rng.uniform(0.002, 0.008))
    breaks = smooth_step(rng.uniform(0.1, 0.35), rng.uniform(0.45, 0.7), rough_noise(side_px, rng))
    core *= 1.0 - rng.uniform(0.2, 1.0) * (1.0 - breaks)
    ragged = soft_noise(side_px, 0.012, rng)
    core = smooth_step(0.25, 0.75, cv2.GaussianBlur(core, (0, 0), side_px * 0.002) * (0.6 + 0.8 * ragged))
    if is_frayed:  # scanned softly
        core = cv2.GaussianBlur(core, (0, 0), side_px * rng.uniform(0.001, 0.004)) * rng.uniform(0.6, 1.0)
    band = cv2.GaussianBlur(band, (0, 0), side_px * rng.uniform(0.008, 0.02)) * rng.uniform(0.0, 0.5)
    opacity = np.maximum(core, band * (0.5 + 0.5 * breaks))
    band_tone = 0.1 if rng.random() < 0.6 else 0.9
    return opacity, np.where(core > band, 0.95, band_tone).astype(np.float32)


def _fray(core: np.ndarray, path: np.ndarray, width_px: float, rng: np.random.Generator) -> None:
    """Beside a crack the emulsion flakes off, in chips and in short cracks at an angle, more in some stretches."""
    stretches = np.convolve(rng.random(len(path)) < 0.2, np.ones(5), "same") > 0
    for point in path[stretches]:
        for _ in range(rng.integers(0, 4)):
            centre = point + rng.normal(0, 1.5 * width_px, 2)
            reach_px = width_px * rng.uniform(0.3, 2.0)
            chip = centre + rng.normal(0, reach_px, (int(rng.integers(2, 5)), 2))
            draw_path(core, chip.astype(np.float32), width_px * rng.uniform(0.2, 0.9), rng.uniform(0.5, 1.0))


def draw_stains(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Soft tints with a darker rim, or foxing: a scatter of small soft spots."""
    if rng.random() < 0.3:
        spots: np.ndarray = np.zeros((side_px, side_px), np.float32)
        for _ in range(rng.integers(3, 40)):
            centre = tuple(int(v) for v in rng.integers(0, side_px, 2))
            cv2.circle(spots, centre, int(side_px * rng.uniform(0.003, 0.025)), rng.uniform(0.3, 1.0), cv2.FILLED)
        spots = cv2.GaussianBlur(spots, (0, 0), side_px * rng.uniform(0.002, 0.008))
        return spots, 0.3 * soft_noise(side_px, 0.1, rng)
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    centre_y, centre_x, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.08, 0.45)
    distance = np.hypot((y - centre_y) * rng.uniform(0.7, 1.4), x - centre_x) / radius
    field = 1.0 - distance + rng.uniform(0.2, 0.7) * (rough_noise(side_px, rng) - 0.5) * 2.0
    softness = rng.uniform(0.02, 0.3)
    body = smooth_step(0.0, softness, field) * rng.uniform(0.3, 0.8)
    rim = np.exp(-(((field - 0.05) / rng.uniform(0.02, 0.08)) ** 2)) * rng.uniform(0.0, 0.6)
    opacity = np.maximum(body * (0.7 + 0.3 * soft_noise(side_px, 0.15, rng)), rim)
    return opacity, (0.4 * (1.0 - rim) * soft_noise(side_px, 0.2, rng)).astype(np.float32)


def draw_holes(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Missing corners, torn and worn edges and holes: opaque, with a ragged outline and a fibrous rim."""
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    kind = rng.random()
    if kind < 0.2:  # an edge worn by many hands: chips, the more the nearer
        worn = rough_noise(side_px, rng) * 0.6 + soft_noise(side_px, rng.uniform(0.006, 0.02), rng) * 0.4
        opacity = smooth_step(0.0, 0.06, worn - 0.45 - y / rng.uniform(0.1, 0.4))
        return opacity, np.full_like(opacity, 0.9)
    if kind < 0.45:  # a corner
        reach = rng.uniform(0.1, 0.5)
        depth = reach - (x * rng.uniform(0.6, 1.6) + y * rng.uniform(0.6, 1.6))
    elif kind < 0.6:  # an edge
        depth = rng.uniform(0.02, 0.15) - y
    else:
        centre_y, centre_x = rng.uniform(0.1, 0.9, 2)
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 3.0)
        dy, dx = y - centre_y, x - centre_x
        along = np.cos(angle) * dx + np.sin(angle) * dy
        across = -np.sin(angle) * dx + np.cos(angle) * dy
        depth = rng.uniform(0.02, 0.14) - np.hypot(along / stretch, across)
    depth = depth + rng.uniform(0.01, 0.08) * (rough_noise(side_px, rng) - 0.5)
    opacity = smooth_step(0.0, 0.006, depth)
    rim = 1.0 - smooth_step(0.0, rng.uniform(0.01, 0.03), depth)
    tone = np.maximum(rim * (rng.random() < 0.6), rng.uniform(0, 0.25) * rough_noise(side_px, rng))
    return opacity, tone.astype(np.float32)


def draw_scratches(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where something rubbed: bundles of short, straight scratches in about one direction."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 4)):
        heading, centre = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9, 2) * side_px
        spread_px = side_px * rng.uniform(0.03, 0.25)
        for _ in range(rng.integers(3, 25)):
            angle = heading + rng.normal(0, 0.12)
            half = np.array([np.cos(angle), np.sin(angle)]) * side_px * rng.uniform(0.01, 0.15)
            middle = centre + rng.normal(0, spread_px, 2)
            ends = np.stack([middle - half, middle + half]).astype(np.float32)
            draw_path(opacity, ends, rng.uniform(0.4, 2.0), rng.uniform(0.3, 1.0))
    return opacity * (0.5 + 0.5 * soft_noise(side_px, 0.05, rng)), np.full_like(opacity, 0.95)


def draw_dust(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Specks: many tiny ones, a few larger, none quite round."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    for _ in range(int(np.exp(rng.uniform(np.log(4), np.log(150))))):
        centre = rng.uniform(0, side_px, 2)
        radius_px = side_px * 0.0015 * np.exp(min(rng.exponential(0.7), 2.5))
        if radius_px < 1.0:
            draw_path(
                opacity, np.stack([centre, centre + 0.5]).astype(np.float32), 2 * radius_px, rng.uniform(0.4, 1.0)
            )
            continue
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        radii_px = radius_px * rng.uniform(0.5, 1.3, (12, 1)) * rng.uniform(0.5, 1.0, 2)
        outline = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii_px
        speck = np.zeros((side_px, side_px), np.uint8)
        cv2.fillPoly(speck, [(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        np.maximum(opacity, speck * np.float32(rng.uniform(0.4, 1.0) / 255.0), out=opacity)
    return opacity, 0.6 + 0.4 * soft_noise(side_px, 0.1, rng)


def draw_fibres(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hairs and lint: thin, smooth, curled."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 9)):
        path = random_path(side_px, rng, length=rng.uniform(0.03, 0.5), bend=rng.uniform(0.05, 0.35), jitter=0.0)
        draw_path(opacity, path, rng.uniform(0.7, 2.5), rng.uniform(0.4, 1.0))
    return opacity, 0.6 + 0.4 * soft_noise(side_px, 0.1, rng)


def draw_captions(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lines of writing, as photographers, studios and camera backs put them on."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.uint8)
    for _ in range(rng.integers(1, 4)):
        letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-/&"), 14))
        font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
        corner = (int(rng.uniform(0, 0.5) * side_px), int(rng.uniform(0.1, 0.95) * side_px))
        size = side_px / 320 * rng.uniform(0.3, 1.2)
        cv2.putText(opacity, letters, corner, font, size, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
    return opacity / np.float32(255.0), np.full((side_px, side_px), 0.95, np.float32)


Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
DRAW: dict[str, Draw] = {
    "strokes": draw_strokes,
    "hairlines": draw_hairlines,
    "scratches": draw_scratches,
    "dust": draw_dust,
    "fibres": draw_fibres,
    "creases": draw_creases,
    "stains": draw_stains,
    "holes": draw_holes,
    INNOCENT: draw_captions,
}
