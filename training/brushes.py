"""What damage is drawn with: noise, ragged paths, lines whose width and strength vary along the way.

Canvases are (S, S) float32 in [0, 1]; points are (P, 2), x before y, in pixels of the canvas.
"""

import cv2
import numpy as np

Planes = tuple[np.ndarray, np.ndarray]
"""Opacity and tone, (S, S) float32 in [0, 1] each."""


def to_levels(plane: np.ndarray) -> np.ndarray:
    levels: np.ndarray = (np.clip(plane, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return levels


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def smooth_step(start: float | np.ndarray, end: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """0 at `start`, 1 at `end`, smooth between; falls where the end is below the start."""
    t = np.clip((value - start) / (end - start), 0.0, 1.0)
    step: np.ndarray = t * t * (3.0 - 2.0 * t)
    return step


# --- noise ------------------------------------------------------------------------------------------------------------


def soft_noise(side_px: int, scale: float | tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: smooth noise whose features are `scale` of the side; two scales: height, width."""
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    rows, columns = (max(2, round(1.0 / each)) + 3 for each in scales)
    coarse = rng.random((rows, columns), dtype=np.float32)
    noise = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    low, high = float(noise.min()), float(noise.max())
    stretched: np.ndarray = (noise - low) / max(high - low, 1e-6)
    return stretched


def rough_noise(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: noise at several scales, for ragged outlines."""
    octaves = [(0.25, 0.45), (0.08, 0.27), (0.025, 0.18), (0.009, 0.1)]
    noise: np.ndarray = np.sum([weight * soft_noise(side_px, scale, rng) for scale, weight in octaves], axis=0)
    return noise


def cell_noise(side_px: int, num_cells: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: angular patches, each of one level."""
    points = np.full((side_px, side_px), 255, np.uint8)
    points[tuple(rng.integers(0, side_px, (2, num_cells)))] = 0
    return _of_nearest(points, rng)


def ray_noise(outline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32 in [0, 1]: rays straight away from an outline, (S, S) bool, as torn paper's fibres lie."""
    if not outline.any():
        return np.zeros(outline.shape, np.float32)
    return _of_nearest(np.where(outline, 0, 255).astype(np.uint8), rng)


def _of_nearest(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random level for each pixel that is 0, and the nearest one's for every other."""
    _, nearest = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    levels: np.ndarray = rng.random(int(nearest.max()) + 1, dtype=np.float32)[nearest]
    return levels


def line_noise(num_points: int, num_cells: int, rng: np.random.Generator) -> np.ndarray:
    """(P,) in [0, 1]: noise along a line, of so many features."""
    noise: np.ndarray = np.interp(
        np.linspace(0, num_cells, num_points), np.arange(num_cells + 1), rng.random(num_cells + 1)
    )
    return noise


# --- paths ------------------------------------------------------------------------------------------------------------


def random_path(side_px: int, rng: np.random.Generator, *, length: float, bend: float, jitter: float) -> np.ndarray:
    """(P, 2) float32 points of a random walk. length and jitter relative to the side; bend: radians per step."""
    num_points = 48
    step_px = length * side_px / num_points
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, num_points) + rng.normal(0, bend / 2))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * step_px, axis=0)
    points += rng.normal(0, jitter * side_px, points.shape)
    placed: np.ndarray = (points - points.mean(axis=0) + rng.uniform(0.15, 0.85, 2) * side_px).astype(np.float32)
    return placed


def crack_path(side_px: int, start: np.ndarray, heading: float, length: float, rng: np.random.Generator) -> np.ndarray:
    """(P, 2) float32 points from `start`: straight on the whole, jagged in detail. length: relative to the side."""
    num_points = max(4, round(length / 0.012))
    bends = np.cumsum(rng.normal(0, 0.05, num_points)) + rng.normal(0, 0.55, num_points)
    headings = heading + bends
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * side_px * 0.012
    points: np.ndarray = (start + np.cumsum(steps, axis=0)).astype(np.float32)
    return np.concatenate([start[None].astype(np.float32), points])


def fixed_point(points: np.ndarray) -> np.ndarray:
    """(P, 2) int32: sixteenths of a pixel, as OpenCV takes them with `shift=4`."""
    fixed: np.ndarray = (points * 16).astype(np.int32)
    return fixed


# --- lines ------------------------------------------------------------------------------------------------------------


def draw_path(canvas: np.ndarray, points: np.ndarray, width_px: float, value: float = 1.0) -> None:
    """An anti-aliased line; below one pixel the width becomes opacity."""
    strength = value * min(1.0, width_px)
    line = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(
        line, [fixed_point(points).reshape(-1, 1, 2)], False, 255, max(1, round(width_px)), cv2.LINE_AA, shift=4
    )
    np.maximum(canvas, line.astype(np.float32) * np.float32(strength / 255.0), out=canvas)


def draw_varying_path(canvas: np.ndarray, points: np.ndarray, widths_px: np.ndarray, values: np.ndarray) -> None:
    """As `draw_path`, with a width and a value for each of the P - 1 segments."""
    line = np.zeros(canvas.shape, np.uint8)
    fixed = fixed_point(points).tolist()
    levels = (255.0 * values * np.minimum(1.0, widths_px)).tolist()
    for start, end, width_px, level in zip(fixed[:-1], fixed[1:], widths_px.tolist(), levels, strict=True):
        if level > 2.0:
            cv2.line(line, start, end, level, max(1, round(width_px)), cv2.LINE_AA, 4)
    np.maximum(canvas, line * np.float32(1.0 / 255.0), out=canvas)


def tapering(num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """(P,) in [0, 1]: rises from nothing at one end, falls at the other, each over some part of the way."""
    at = np.linspace(0.0, 1.0, num_segments)
    rises, falls = rng.uniform(0.02, 0.5, 2)
    tapers: np.ndarray = smooth_step(0.0, rises, at) * smooth_step(1.0, 1.0 - falls, at)
    return tapers


def draw_scratch(
    canvas: np.ndarray, points: np.ndarray, width_px: float, value: float, rng: np.random.Generator
) -> None:
    """A line that tapers off, thickens and thins, and is interrupted: whatever made it skipped and pressed."""
    num_segments = len(points) - 1
    pressure = tapering(num_segments, rng) * (0.35 + 0.65 * line_noise(num_segments, int(rng.integers(3, 12)), rng))
    skips = smooth_step(0.1, 0.35, line_noise(num_segments, int(rng.integers(4, 24)), rng) + rng.uniform(-0.1, 0.35))
    draw_varying_path(canvas, points, width_px * (0.4 + 0.8 * pressure), value * np.sqrt(pressure) * skips)


def distances_px(lines: np.ndarray) -> np.ndarray:
    """lines: (2S, 2S) uint8, drawn at twice the size; returns (S, S) float32: pixels to the nearest one.

    At twice the size a distance transform's steps are fine enough for anti-aliased outlines.
    """
    if not lines.any():
        return np.full((len(lines) // 2, len(lines) // 2), 1e6, np.float32)
    apart = cv2.distanceTransform((lines == 0).astype(np.uint8), cv2.DIST_L2, 3)
    distances: np.ndarray = cv2.resize(apart, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) * np.float32(0.5)
    return distances
