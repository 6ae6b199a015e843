"""What got onto a print or into it, and shines through: tide marks, foxing, mould, fingerprints, tape, leaked light.

A tone of 0 darkens and tints what is under it, 1 bleaches it.
"""

import math

import cv2
import numpy as np

from training.brushes import (
    Planes,
    draw_path,
    fixed_point,
    log_uniform,
    random_path,
    rough_noise,
    smooth_step,
    soft_noise,
)


def draw_stains(side_px: int, rng: np.random.Generator) -> Planes:
    """One of seven kinds."""
    kinds = (_blot, _tide_marks, _foxing, _mould, _fingerprint, _tape, _leaked_light)
    drawn: Planes = kinds[rng.choice(len(kinds), p=(0.2, 0.27, 0.17, 0.1, 0.07, 0.11, 0.08))](side_px, rng)
    return drawn


def _spread(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32: above 0 where a liquid spread, by how far inside."""
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    centre_y, centre_x, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.08, 0.5)
    if rng.random() < 0.25:  # it came in over an edge
        distance = x / radius
    else:
        distance = np.hypot((y - centre_y) * rng.uniform(0.7, 1.4), x - centre_x) / radius
    spread: np.ndarray = 1.0 - distance + rng.uniform(0.4, 1.4) * (rough_noise(side_px, rng) - 0.5)
    return spread


def _blot(side_px: int, rng: np.random.Generator) -> Planes:
    """A soft tint, uneven inside, often with a darker rim."""
    field = _spread(side_px, rng)
    body = smooth_step(0.0, rng.uniform(0.03, 0.4), field) * rng.uniform(0.4, 0.95)
    rim = np.exp(-np.square((field - 0.05) / rng.uniform(0.02, 0.08))) * rng.uniform(0.0, 0.6)
    opacity = np.maximum(body * (0.6 + 0.4 * soft_noise(side_px, 0.15, rng)), rim)
    bleached = float(rng.random() < 0.25)
    return opacity, 0.25 * (1.0 - rim) * soft_noise(side_px, 0.2, rng) + 0.7 * bleached * (1.0 - rim)


def _tide_marks(side_px: int, rng: np.random.Generator) -> Planes:
    """Where water dried: one or several lines within each other, sharp outside and soft inside."""
    field = _spread(side_px, rng)
    opacity = smooth_step(0.0, 0.04, field) * rng.uniform(0.0, 0.3) * (0.5 + 0.5 * soft_noise(side_px, 0.2, rng))
    level = 0.0
    for _ in range(rng.integers(1, 5)):
        inside = field - level - 0.06 * (soft_noise(side_px, 0.06, rng) - 0.5)
        line = smooth_step(-0.012, 0.006, inside) * np.exp(-np.maximum(inside, 0.0) / rng.uniform(0.015, 0.08))
        uneven = 0.35 + 0.65 * soft_noise(side_px, 0.12, rng)
        opacity = np.maximum(opacity, rng.uniform(0.4, 1.0) * line * uneven)
        level += rng.uniform(0.04, 0.25)
    return opacity, np.full_like(opacity, 0.9 if rng.random() < 0.12 else 0.05)


def _foxing(side_px: int, rng: np.random.Generator) -> Planes:
    """Brown spots of many sizes, soft, darker in their middle."""
    halos: np.ndarray = np.zeros((side_px, side_px), np.float32)
    cores = np.zeros_like(halos)
    for _ in range(round(log_uniform(4, 90, rng))):
        centre = fixed_point(rng.uniform(0, side_px, 2)).tolist()
        radius_px = side_px * 0.003 * math.exp(min(rng.exponential(0.8), 2.3))
        strength = rng.uniform(0.2, 0.9)
        cv2.circle(halos, centre, round(16 * radius_px), strength, cv2.FILLED, cv2.LINE_8, 4)
        cv2.circle(cores, centre, round(8 * radius_px), strength, cv2.FILLED, cv2.LINE_8, 4)
    soft_px = side_px * rng.uniform(0.0015, 0.005)
    ragged = 0.5 + soft_noise(side_px, 0.012, rng)
    opacity = 0.55 * cv2.GaussianBlur(halos, (0, 0), 2 * soft_px) + 0.6 * cv2.GaussianBlur(cores, (0, 0), soft_px)
    return opacity * ragged, 0.1 * soft_noise(side_px, 0.1, rng)


def _mould(side_px: int, rng: np.random.Generator) -> Planes:
    """Speckle in colonies, with threads between."""
    speckle = soft_noise(side_px, rng.uniform(0.005, 0.014), rng)
    colonies = rough_noise(side_px, rng)
    opacity = smooth_step(0.0, 0.12, speckle + 0.9 * colonies - rng.uniform(1.12, 1.3)) * rng.uniform(0.4, 0.9)
    for _ in range(rng.integers(0, 12)):
        thread = random_path(side_px, rng, length=rng.uniform(0.05, 0.3), bend=0.4, jitter=0.002)
        draw_path(opacity, thread, rng.uniform(0.4, 1.0), rng.uniform(0.2, 0.6))
    opacity *= smooth_step(0.35, 0.6, colonies)
    return opacity.astype(np.float32), np.full_like(opacity, 0.85 if rng.random() < 0.3 else 0.05)


def _fingerprint(side_px: int, rng: np.random.Generator) -> Planes:
    """Ridges around a core, pressed unevenly; one to three fingers."""
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    opacity: np.ndarray = np.zeros_like(x)
    bend = soft_noise(side_px, 0.15, rng)
    for _ in range(rng.integers(1, 4)):
        centre_y, centre_x = rng.uniform(0.1, 0.9, 2)
        angle, length = rng.uniform(0, np.pi), rng.uniform(0.07, 0.16)
        along = np.cos(angle) * (x - centre_x) + np.sin(angle) * (y - centre_y)
        across = np.cos(angle) * (y - centre_y) - np.sin(angle) * (x - centre_x)
        from_core = np.hypot(along * 0.6 + 0.2 * length, across) + 0.25 * along
        ridges = np.sin(2 * np.pi * (from_core / length * rng.uniform(6, 10) + 5.0 * bend))
        pressed = smooth_step(1.0, 0.75, np.hypot(along / length, across / (0.7 * length)))
        opacity = np.maximum(opacity, smooth_step(-0.1, 0.8, ridges) * pressed * rng.uniform(0.4, 0.9))
    uneven = 0.3 + 0.7 * soft_noise(side_px, 0.05, rng)
    return opacity * uneven, np.full_like(opacity, 1.0 if rng.random() < 0.5 else 0.0)


def _tape(side_px: int, rng: np.random.Generator) -> Planes:
    """Strips of yellowed adhesive tape: straight sides, cut or torn ends, blotches of glue, dirt along the sides."""
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    opacity: np.ndarray = np.zeros_like(x)
    blotches = soft_noise(side_px, 0.05, rng)
    width, angle = rng.uniform(0.04, 0.11), rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 3)):
        centre_y, centre_x, half_length = *rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.6)
        along = np.cos(angle) * (x - centre_x) + np.sin(angle) * (y - centre_y)
        across = np.cos(angle) * (y - centre_y) - np.sin(angle) * (x - centre_x)
        teeth = rng.choice([0.0, 0.006]) * np.abs(np.mod(across / 0.012, 2.0) - 1.0)  # of the dispenser
        inside = np.minimum(width - np.abs(across), half_length + teeth - np.abs(along))
        strip = smooth_step(-0.002, 0.002, inside)
        sides = np.exp(-np.abs(inside) / 0.004) * rng.uniform(0.0, 0.4)
        opacity = np.maximum(opacity, strip * rng.uniform(0.3, 0.8) * (0.7 + 0.5 * blotches) + sides)
        angle += np.pi / 2
    return opacity, np.full_like(opacity, 0.75 if rng.random() < 0.25 else 0.05)


def _leaked_light(side_px: int, rng: np.random.Generator) -> Planes:
    """A wide glow from an edge, or streaks of it, brightest outside."""
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32) / side_px
    uneven = soft_noise(side_px, 0.4, rng)
    reach = rng.uniform(0.08, 0.5) * (0.3 + 1.2 * soft_noise(side_px, 0.35, rng))
    opacity = np.exp(-np.square(x / reach)) * (0.5 + 0.5 * uneven)
    if rng.random() < 0.4:
        streak = np.abs(y - rng.uniform(0, 1) - rng.normal(0, 0.4) * x) / rng.uniform(0.02, 0.1)
        opacity = np.maximum(opacity, np.exp(-np.square(streak)) * np.exp(-2.0 * x))
    return opacity * rng.uniform(0.4, 1.0), np.full_like(opacity, 1.0)
