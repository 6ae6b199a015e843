"""What a print has lost: worn and torn edges, corners, holes, and patches where the emulsion flaked off.

Each kind is a *depth*: how far inside the missing part a pixel lies, relative to the side, negative on the print.
"""

import math

import cv2
import numpy as np

from training.brushes import Planes, cell_noise, ray_noise, rough_noise, smooth_step, soft_noise


def draw_holes(side_px: int, rng: np.random.Generator) -> Planes:
    """Opaque, with a ragged outline and a rim of paper fibres (tone 1); behind it (tone 0) what the print lies on."""
    kind = rng.random()
    if kind < 0.35:
        return _bare(_worn_edges(side_px, rng), rng.uniform(0.015, 0.12), rng, torn=0.1)
    if kind < 0.5:
        depth = np.maximum.reduce([_lost_corner(side_px, rng) for _ in range(rng.integers(1, 3))])
        return _bare(depth, rng.uniform(0.006, 0.035), rng, torn=0.6)
    if kind < 0.65:
        return _bare(_torn_edge(side_px, rng), rng.uniform(0.006, 0.035), rng, torn=0.6)
    if kind < 0.8:
        return _bare(_torn_hole(side_px, rng), rng.uniform(0.002, 0.03), rng, torn=0.6)
    if kind < 0.93:
        return _bare(_flaked_patch(side_px, rng), rng.choice([0.01, 1.0], p=(0.2, 0.8)), rng, torn=0.0)
    return _bare(_pin_holes(side_px, rng), rng.uniform(0.001, 0.006), rng, torn=0.0)


def _bare(depth: np.ndarray, rim_width: float, rng: np.random.Generator, *, torn: float) -> Planes:
    """Opacity and tone of what is missing. rim_width: how far in the paper's own white shows, relative to the side;
    torn: how much of its unevenness is fibres across the outline."""
    side_px = len(depth)
    softness = rng.uniform(0.6, 2.0) / side_px
    opacity = smooth_step(-softness, softness, depth)
    missing = (depth > 0).astype(np.uint8)
    outline = cv2.morphologyEx(missing, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    fibres = cv2.GaussianBlur(ray_noise(outline, rng), (0, 0), 0.7)
    pulp = 0.6 * soft_noise(side_px, 0.008, rng) + 0.4 * soft_noise(side_px, 0.03, rng)
    fibres = torn * fibres + (1.0 - torn) * pulp
    rim = smooth_step(1.0, 0.55, depth / (rim_width * (0.2 + 1.6 * fibres)))
    backing = rng.uniform(0.0, 0.3) * rough_noise(side_px, rng) + rng.uniform(0.0, 0.12) * fibres
    tone = np.maximum(rim * (0.75 + 0.25 * fibres), backing)
    return opacity, tone


def _coordinates(side_px: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    return y, x


def _worn_edges(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """All around, as by many hands: chips along the edges, corners rounded off, one edge worse than others."""
    y, x = _coordinates(side_px)
    sides = [y, 1.0 - y, x, 1.0 - x]
    worst = int(rng.integers(4))
    sides[worst] = sides[worst] / rng.uniform(1.0, 2.5)
    from_edge = np.minimum.reduce(sides)
    radius = rng.uniform(0.02, 0.16)
    inner_y, inner_x = (radius - np.minimum(axis, 1.0 - axis) for axis in (y, x))
    in_corner = (inner_y > 0) & (inner_x > 0)
    from_edge = np.where(in_corner, np.minimum(from_edge, radius - np.hypot(inner_y, inner_x)), from_edge)
    chips = 0.7 * rough_noise(side_px, rng) + 0.3 * cell_noise(side_px, int(rng.integers(300, 3000)), rng)
    frayed = 0.004 * soft_noise(side_px, 0.008, rng)
    reach = rng.uniform(0.02, 0.14) * (0.3 + soft_noise(side_px, 0.3, rng))
    depth: np.ndarray = reach * smooth_step(0.35, 0.9, chips) + frayed + 0.003 - from_edge
    return depth


def _lost_corner(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Broken off along a crooked line, or rounded off."""
    y, x = _coordinates(side_px)
    if rng.random() < 0.5:
        x = 1.0 - x
    if rng.random() < 0.5:
        y = 1.0 - y
    reach = rng.uniform(0.06, 0.4)
    along_y, along_x = rng.uniform(0.6, 1.8, 2)
    depth = reach - (x * along_x + y * along_y)
    if rng.random() < 0.3:  # rounded
        depth = np.hypot(reach - x, reach - y) * ((x < reach) & (y < reach)) - reach
    return _ragged(depth, rng)


def _torn_edge(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Torn off from edge to edge, or a strip of it."""
    y, x = _coordinates(side_px)
    across = y if rng.random() < 0.5 else x
    slope = rng.normal(0, 0.12)
    depth = rng.uniform(0.02, 0.18) - across + slope * ((x if across is y else y) - 0.5)
    if rng.random() < 0.5:  # a tear that runs into the print from there
        along = x if across is y else y
        middle = rng.uniform(0.1, 0.9) + 0.3 * rng.normal() * across + 0.1 * soft_noise(side_px, 0.2, rng)
        wedge = rng.uniform(0.003, 0.03) * (1.0 - across / rng.uniform(0.2, 0.8)) - np.abs(along - middle)
        depth = np.maximum(depth, wedge)
    return _ragged(depth, rng)


def _torn_hole(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Somewhere inside: of a crooked outline, longer than wide."""
    y, x = _coordinates(side_px)
    centre_y, centre_x = rng.uniform(0.2, 0.8, 2)
    dy, dx = y - centre_y, x - centre_x
    turned = np.arctan2(dy, dx) + rng.uniform(0, 2 * np.pi)
    outline = sum(rng.normal(0, 0.15 / math.sqrt(k)) * np.cos(k * turned + rng.uniform(0, 6)) for k in range(2, 12))
    radius = rng.uniform(0.015, 0.13) * np.exp(outline)
    return _ragged(radius - np.hypot(dx, dy), rng)


def _flaked_patch(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Emulsion that came off in islands, densest around one place."""
    y, x = _coordinates(side_px)
    centre_y, centre_x = rng.uniform(0.1, 0.9, 2)
    away = np.hypot(y - centre_y, (x - centre_x) * rng.uniform(0.5, 2.0)) / rng.uniform(0.1, 0.5)
    islands = 0.6 * rough_noise(side_px, rng) + 0.4 * cell_noise(side_px, int(rng.integers(800, 8000)), rng)
    depth: np.ndarray = 0.15 * (islands - rng.uniform(0.52, 0.62) - 0.25 * np.square(away))
    return depth


def _pin_holes(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Of pins, staples and punches: small, round, a few."""
    y, x = _coordinates(side_px)
    depth: np.ndarray = np.full_like(y, -1.0)
    for _ in range(rng.integers(1, 5)):
        centre_y, centre_x = rng.uniform(0.03, 0.97, 2)
        depth = np.maximum(depth, rng.uniform(0.005, 0.03) - np.hypot(y - centre_y, x - centre_x))
    return depth + 0.006 * (soft_noise(side_px, 0.02, rng) - 0.5)


def _ragged(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An outline that is crooked on the whole and frayed in detail."""
    side_px = len(depth)
    frayed = 0.012 * (soft_noise(side_px, 0.008, rng) - 0.5)
    ragged: np.ndarray = depth + rng.uniform(0.02, 0.12) * (rough_noise(side_px, rng) - 0.5) + frayed
    return ragged
