"""Creases and cracks: where a print was folded, and where its emulsion broke into a net."""

import math

import cv2
import numpy as np

from training.brushes import (
    Planes,
    cell_noise,
    crack_path,
    distances_px,
    fixed_point,
    log_uniform,
    random_path,
    smooth_step,
    soft_noise,
)

Lines = tuple[np.ndarray, np.ndarray]
"""Main lines and finer ones: (2S, 2S) uint8 each, where a line runs not 0."""


def draw_creases(side_px: int, rng: np.random.Generator) -> Planes:
    """Folds, nets of cracks that branch and end at one another, and craquelure: a light core, broken and frayed, where
    the emulsion is gone, and beside it some shade, as of a ridge."""
    kind = rng.random()
    main, fine = (np.zeros((2 * side_px, 2 * side_px), np.uint8) for _ in range(2))
    if kind < 0.45:
        _fold(main, rng)
    if 0.33 < kind < 0.92:
        _grow_net(main, fine, rng)
    if kind < 0.92:
        half_width_px = side_px * log_uniform(0.0015, 0.007, rng)
    else:
        half_width_px = side_px * log_uniform(0.0008, 0.0022, rng)
        _craze(fine, rng)
    return _open(distances_px(main), distances_px(fine), half_width_px, rng)


def _fold(lines: np.ndarray, rng: np.random.Generator) -> None:
    """Straight folds, crossing at right angles more often than not, or corners that were bent over."""
    side_px = len(lines)
    heading = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.3:
            along_x, along_y = rng.uniform(0.1, 0.5, 2) * side_px
            path = np.linspace((along_x, -2.0), (-2.0, along_y), 24)
            path += rng.normal(0, 0.002 * side_px, path.shape)
        else:
            path = random_path(side_px, rng, length=1.8, bend=0.012, jitter=rng.uniform(0.0005, 0.002))
            path = _turn(path, heading + rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.05))
        cv2.polylines(lines, [fixed_point(path).reshape(-1, 1, 2)], False, 255, 1, cv2.LINE_8, shift=4)


def _turn(path: np.ndarray, heading: float) -> np.ndarray:
    """The path turned about its middle so that it runs in that direction."""
    middle, along = path.mean(axis=0), path[-1] - path[0]
    angle = heading - np.arctan2(along[1], along[0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned: np.ndarray = (path - middle) @ turn + middle
    return turned


def _grow_net(main: np.ndarray, fine: np.ndarray, rng: np.random.Generator) -> None:
    """Cracks come in from the edges, or branch off others, and end where they meet one."""
    side_px = len(main)
    taken = np.zeros_like(main)
    grown: list[np.ndarray] = []
    num_cracks = round(log_uniform(5, 45, rng))
    reach = rng.uniform(0.3, 1.5) * side_px  # around the first one: a part of the print, or all of it
    for _ in range(num_cracks):
        is_branch = bool(grown) and rng.random() < 0.6
        start, heading = _branch(grown, rng) if is_branch else _edge_point(side_px, rng)
        if grown and np.hypot(*(start - grown[0][0])) > reach:
            continue
        length = min(1.3, rng.exponential(0.2) + 0.04) if is_branch else rng.uniform(0.08, 1.3)
        path = _until_taken(crack_path(side_px, start, heading, length, rng), taken)
        if len(path) < 4:
            continue
        grown.append(path)
        is_fine = rng.random() < (0.6 if is_branch else 0.25)
        line = [fixed_point(path).reshape(-1, 1, 2)]
        cv2.polylines(fine if is_fine else main, line, False, 255, 1, cv2.LINE_8, shift=4)
        cv2.polylines(taken, line, False, 255, max(2, side_px // 80), cv2.LINE_8, shift=4)


def _edge_point(side_px: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A point on an edge, and a heading inwards."""
    quarter, along = int(rng.integers(4)), rng.uniform(0, side_px)
    start = np.array([(along, 0.0), (side_px - 1.0, along), (along, side_px - 1.0), (0.0, along)][quarter])
    return start, np.pi / 2 * (quarter + 1) + rng.normal(0, 0.6)


def _branch(grown: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A point on a crack, and a heading away from it."""
    path = grown[int(rng.integers(len(grown)))]
    at = int(rng.integers(1, len(path) - 1))
    along = path[at + 1] - path[at - 1]
    return path[at], float(np.arctan2(along[1], along[0]) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.5))


def _until_taken(path: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The path up to where it leaves the canvas or meets a crack; its beginning may lie on one."""
    x, y = path.astype(np.int32).T
    limit = len(taken) - 1
    ends = (x < 0) | (y < 0) | (x > limit) | (y > limit)
    meets = taken[y.clip(0, limit), x.clip(0, limit)] > 0
    meets[:5] = False
    ends[:1] = False
    ends |= meets
    return path[: int(ends.argmax()) + 1] if ends.any() else path


def _craze(lines: np.ndarray, rng: np.random.Generator) -> None:
    """Craquelure: the borders of cells around scattered points, bent, over part of the print."""
    side_px = len(lines)
    points = np.full_like(lines, 255)
    num_cells = round(log_uniform(40, 400, rng))
    points[rng.integers(0, side_px, num_cells), rng.integers(0, side_px, num_cells)] = 0
    _, cells = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    bent_px = 0.7 * side_px / math.sqrt(num_cells)
    y, x = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    x, y = (axis + bent_px * (soft_noise(side_px, 0.04, rng) - 0.5) for axis in (x, y))
    cells = cv2.remap(cells.astype(np.float32), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    is_border = (cells[:-1, :-1] != cells[1:, :-1]) | (cells[:-1, :-1] != cells[:-1, 1:])
    is_there = soft_noise(side_px, 0.2, rng) > rng.uniform(0.2, 0.6)
    lines[:-1, :-1] |= (is_border & is_there[:-1, :-1]).astype(np.uint8) * 255


def _open(to_main: np.ndarray, to_fine: np.ndarray, half_width_px: float, rng: np.random.Generator) -> Planes:
    """Opacity and tone of the cracks from the distances to their middle, (S, S) px each."""
    side_px = len(to_main)
    ragged = soft_noise(side_px, 0.011, rng)
    varies = soft_noise(side_px, 0.05, rng)
    breaks = smooth_step(rng.uniform(0.0, 0.3), rng.uniform(0.32, 0.5), soft_noise(side_px, 0.09, rng))
    open_px = half_width_px * (0.3 + 1.2 * varies + 0.8 * (ragged - 0.5)) * breaks
    edge_px = rng.uniform(0.5, 1.2)
    nearest = np.minimum(to_main, to_fine + half_width_px * 0.6)
    core = smooth_step(edge_px, -edge_px, nearest - open_px)
    core *= np.minimum(1.0, open_px + 0.35)  # narrower than a pixel: fainter
    core = np.maximum(core, _flake(np.minimum(to_main, 1.5 * to_fine), ragged, half_width_px, rng))
    core *= rng.uniform(0.85, 1.0) * (0.85 + 0.15 * varies)
    shade = _shade(nearest, half_width_px, rng) * (0.4 + 0.6 * breaks)
    opacity = np.maximum(core, shade)
    tone = core / np.maximum(core + shade, 1e-3) * (0.88 + 0.12 * ragged)
    return opacity, tone


def _flake(distance_px: np.ndarray, ragged: np.ndarray, half_width_px: float, rng: np.random.Generator) -> np.ndarray:
    """Islands beside the cracks where the emulsion flaked off, more in some stretches than in others."""
    side_px = len(distance_px)
    reach_px = half_width_px * rng.uniform(1.5, 5.0) + 0.5
    islands = 0.5 * ragged + 0.5 * cell_noise(side_px, int(rng.integers(1000, 10000)), rng)
    stretches = smooth_step(0.35, 0.8, soft_noise(side_px, 0.12, rng)) * rng.uniform(0.0, 0.45)
    flakes: np.ndarray = smooth_step(0.0, 0.1, islands - 0.8 + stretches - 0.12 * distance_px / reach_px)
    return flakes * (distance_px < 4.0 * reach_px)


def _shade(distance_px: np.ndarray, half_width_px: float, rng: np.random.Generator) -> np.ndarray:
    """Along the cracks, on one side more than on the other: the paper stands up."""
    reach_px = half_width_px * rng.uniform(1.5, 6.0) + 1.0
    aside = np.array([[1, 0, rng.normal(0, 0.5) * reach_px], [0, 1, rng.normal(0, 0.5) * reach_px]], np.float32)
    size = distance_px.shape[::-1]
    shifted = cv2.warpAffine(distance_px, aside, size, borderMode=cv2.BORDER_REPLICATE)
    shade: np.ndarray = np.exp(-np.square(shifted / reach_px)) * rng.uniform(0.0, 0.45) * (rng.random() < 0.7)
    return shade
