"""Thin and small damage, and writing: strokes, hairlines, scratches, dust and fibres."""

import math

import cv2
import numpy as np

from training.brushes import (
    Planes,
    draw_path,
    draw_scratch,
    draw_varying_path,
    fixed_point,
    line_noise,
    log_uniform,
    random_path,
    rough_noise,
    smooth_step,
    soft_noise,
    tapering,
)


def draw_strokes(side_px: int, rng: np.random.Generator) -> Planes:
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


# --- lines ------------------------------------------------------------------------------------------------------------


def draw_hairlines(side_px: int, rng: np.random.Generator) -> Planes:
    """Long, thin scratches: plain, of a needle, of a film's transport, or many side by side."""
    kind = rng.random()
    if kind < 0.3:
        return _plain_lines(side_px, rng)
    if kind < 0.58:
        return _needle_scratches(side_px, rng)
    if kind < 0.82:
        return _film_lines(side_px, rng)
    return _parallel_scratches(side_px, rng)


def _plain_lines(side_px: int, rng: np.random.Generator) -> Planes:
    """Of one width and strength throughout, as a knife or a sharp grain leaves them."""
    opacity = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 7)):
        path = random_path(
            side_px, rng, length=rng.uniform(0.3, 2.2), bend=rng.uniform(0.0, 0.06), jitter=rng.uniform(0, 0.0015)
        )
        draw_path(opacity, path, rng.uniform(0.5, 2.8), rng.uniform(0.4, 1.0))
    return opacity, np.full_like(opacity, 0.95)


def _needle_scratches(side_px: int, rng: np.random.Generator) -> Planes:
    """A few, each its own way, some with what was ploughed up (tone 0) beside the groove (tone 1)."""
    groove, rim = (np.zeros((side_px, side_px), np.float32) for _ in range(2))
    for _ in range(rng.integers(1, 7)):
        path = random_path(
            side_px, rng, length=rng.uniform(0.3, 2.2), bend=rng.uniform(0.0, 0.06), jitter=rng.uniform(0, 0.0015)
        )
        width_px = log_uniform(0.7, 3.5, rng)
        draw_scratch(groove, path, width_px, rng.uniform(0.5, 1.0), rng)
        if rng.random() < 0.35:
            beside = path + rng.choice([-1, 1], 2) * (0.5 * width_px + 0.4)
            draw_scratch(rim, beside, width_px + 1.0, rng.uniform(0.2, 0.7), rng)
    return _over(groove, rim, rng)


def _film_lines(side_px: int, rng: np.random.Generator) -> Planes:
    """Along the film, from end to end or nearly: alone, in light and dark pairs, in groups, or as a faint wide band."""
    light, dark = (np.zeros((side_px, side_px), np.float32) for _ in range(2))
    num_points = 97
    y = np.linspace(-0.02, 1.02, num_points) * side_px
    middle = rng.uniform(0, side_px)
    for _ in range(rng.integers(1, 7)):
        x = middle + np.cumsum(rng.normal(0, 0.1, num_points)) if rng.random() < 0.5 else rng.uniform(0, side_px)
        path = np.stack([np.broadcast_to(x, num_points) + rng.normal(0, 0.05 * side_px * 0.02), y], axis=1)
        middle += rng.choice([-1, 1]) * rng.uniform(1.5, 8.0)
        width_px, value = log_uniform(0.5, 2.8, rng), rng.uniform(0.4, 1.0)
        strengths = _mottled(num_points - 1, rng) * (tapering(num_points - 1, rng) if rng.random() < 0.6 else 1.0)
        widths_px = width_px * (0.6 + 0.8 * line_noise(num_points - 1, 12, rng))
        draw_varying_path(light if rng.random() < 0.7 else dark, path, widths_px, value * strengths)
        if rng.random() < 0.4:
            pair = path + np.array([rng.choice([-1, 1]) * (width_px + 0.5), 0.0])
            draw_varying_path(dark, pair, widths_px, 0.7 * value * strengths)
    if rng.random() < 0.25:
        dark = np.maximum(dark, _film_band(side_px, rng))
    return _over(light, dark, rng)


def _mottled(num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """(P,) in [0, 1]: strong and weak in turn, gone in places."""
    slow, quick = (line_noise(num_segments, int(rng.integers(*cells)), rng) for cells in ((2, 8), (20, 60)))
    return smooth_step(0.1, 0.75, 0.7 * slow + 0.3 * quick + rng.uniform(-0.1, 0.3))


def _film_band(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S): wide, faint, streaky along the film."""
    x = np.arange(side_px, dtype=np.float32)
    profile = np.exp(-np.square((x - rng.uniform(0, side_px)) / (side_px * rng.uniform(0.006, 0.025))))
    streaks = 0.6 * soft_noise(side_px, (0.2, 0.006), rng) + 0.4 * soft_noise(side_px, (0.02, 0.01), rng)
    band: np.ndarray = profile * streaks * rng.uniform(0.2, 0.7)
    return band


def _parallel_scratches(side_px: int, rng: np.random.Generator) -> Planes:
    """Fine ones side by side, as of grit under a cloth: one sweep, each with gaps of its own."""
    opacity = np.zeros((side_px, side_px), np.float32)
    sweep = random_path(side_px, rng, length=rng.uniform(0.5, 1.8), bend=rng.uniform(0.0, 0.03), jitter=0.0)
    along = sweep[-1] - sweep[0]
    aside = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-6)
    spread_px = side_px * rng.uniform(0.01, 0.12)
    for _ in range(rng.integers(3, 16)):
        first, last = sorted(rng.integers(0, len(sweep), 2))
        if last - first < 5:
            continue
        path = sweep[first:last] + aside * rng.normal(0, spread_px)
        draw_scratch(opacity, path, log_uniform(0.6, 2.2, rng), rng.uniform(0.4, 1.0), rng)
    return _over(opacity, np.zeros_like(opacity), rng)


def _over(light: np.ndarray, dark: np.ndarray, rng: np.random.Generator) -> Planes:
    """Lines of tone 1 over lines of tone 0, both fading here and there."""
    fading = 0.3 + 0.7 * smooth_step(0.15, 0.6, soft_noise(len(light), 0.15, rng) + rng.uniform(0, 0.5))
    opacity = cv2.GaussianBlur(np.maximum(light, dark), (0, 0), rng.uniform(0.3, 0.7))
    return opacity * fading, np.where(light >= dark, 0.95, 0.05).astype(np.float32)


def draw_scratches(side_px: int, rng: np.random.Generator) -> Planes:
    """Where something rubbed: bundles of short scratches in about one direction, some of one strength throughout."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    is_plain = rng.random() < 0.4
    for _ in range(rng.integers(1, 4)):
        heading, centre = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9, 2) * side_px
        spread_px = side_px * rng.uniform(0.03, 0.25)
        for _ in range(rng.integers(4, 28)):
            angle = heading + rng.normal(0, 0.12)
            half = np.array([np.cos(angle), np.sin(angle)]) * side_px * rng.uniform(0.01, 0.15)
            at = np.linspace(-1.0, 1.0, 21)[:, None]
            path = centre + rng.normal(0, spread_px, 2) + half * at
            path += half[::-1] * (1, -1) * (at**2 - 1.0) * rng.normal(0, 0.06)  # hardly any is quite straight
            width_px, value = log_uniform(0.7, 3.0, rng), rng.uniform(0.5, 1.0)
            if is_plain:
                draw_path(opacity, path, width_px, value)
            else:
                draw_scratch(opacity, path, width_px, value, rng)
    opacity = cv2.GaussianBlur(opacity, (0, 0), rng.uniform(0.3, 0.8))
    return opacity * (0.5 + 0.5 * soft_noise(side_px, 0.05, rng)), np.full_like(opacity, 0.95)


def draw_fibres(side_px: int, rng: np.random.Generator) -> Planes:
    """Hairs and lint: thin, smooth, curled, one end thinner."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.float32)
    for _ in range(rng.integers(1, 12)):
        path = random_path(side_px, rng, length=rng.uniform(0.03, 0.5), bend=rng.uniform(0.03, 0.25), jitter=0.0)
        thins = np.linspace(1.0, rng.uniform(0.3, 1.0), len(path) - 1)
        strengths = rng.uniform(0.4, 1.0) * (0.7 + 0.3 * line_noise(len(path) - 1, 8, rng))
        draw_varying_path(opacity, path, log_uniform(0.9, 3.2, rng) * thins, strengths)
    return opacity, 0.6 + 0.4 * soft_noise(side_px, 0.1, rng)


# --- specks -----------------------------------------------------------------------------------------------------------


def draw_dust(side_px: int, rng: np.random.Generator) -> Planes:
    """Specks, none quite round: scattered, in clusters, some with a tail; on film dozens, light (tone 1) and dark."""
    opacity, tone = (np.zeros((side_px, side_px), np.float32) for _ in range(2))
    num_specks = round(log_uniform(7, 220, rng))
    centres = _scatter(num_specks, side_px, rng)
    share_light = rng.choice([0.0, 0.3, 0.7, 1.0], p=(0.1, 0.2, 0.2, 0.5))
    spread = rng.uniform(0.3, 1.0)
    for centre in centres:
        radius_px = side_px * 0.0013 * math.exp(min(spread * rng.exponential(0.9), 2.5))
        strength, is_light = rng.uniform(0.4, 1.0), float(rng.random() < share_light)
        outline = fixed_point(_speck_outline(centre, radius_px, rng))
        cv2.fillPoly(opacity, [outline], strength * min(1.0, 1.5 * radius_px), cv2.LINE_AA, shift=4)
        cv2.circle(tone, fixed_point(centre).tolist(), round(16 * (3 * radius_px + 2)), is_light, cv2.FILLED, shift=4)
        if rng.random() < 0.06:
            tail = random_path(side_px, rng, length=radius_px / side_px * rng.uniform(4, 15), bend=0.3, jitter=0.0)
            tail += centre - tail[0]
            draw_path(opacity, tail.astype(np.float32), max(0.6, 0.4 * radius_px), strength)
    return opacity, tone * (0.7 + 0.3 * soft_noise(side_px, 0.05, rng))


def _scatter(num_specks: int, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 2): all over, or part of them around a few places."""
    centres = rng.uniform(0, side_px, (num_specks, 2))
    if rng.random() < 0.5:
        places = rng.uniform(0, side_px, (int(rng.integers(1, 5)), 2))
        around = places[rng.integers(len(places), size=num_specks)] + rng.normal(
            0, side_px * rng.uniform(0.01, 0.1), (num_specks, 2)
        )
        centres = np.where(rng.random((num_specks, 1)) < rng.uniform(0.3, 1.0), around, centres)
    return centres


def _speck_outline(centre: np.ndarray, radius_px: float, rng: np.random.Generator) -> np.ndarray:
    """(12, 2): lopsided and longer than wide, in any direction."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radii_px = max(radius_px, 0.5) * rng.uniform(0.5, 1.3, (12, 1)) * rng.uniform(0.4, 1.0, 2)
    turn = rng.uniform(0, np.pi)
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii_px
    turned: np.ndarray = outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
    return turned


# --- no damage --------------------------------------------------------------------------------------------------------


def draw_captions(side_px: int, rng: np.random.Generator) -> Planes:
    """Lines of writing, as photographers, studios and camera backs put them on."""
    opacity: np.ndarray = np.zeros((side_px, side_px), np.uint8)
    for _ in range(rng.integers(1, 4)):
        letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-/&"), 14))
        font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
        corner = (int(rng.uniform(0, 0.5) * side_px), int(rng.uniform(0.1, 0.95) * side_px))
        size = side_px / 320 * rng.uniform(0.3, 1.2)
        cv2.putText(opacity, letters, corner, font, size, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
    return opacity / np.float32(255.0), np.full((side_px, side_px), 0.95, np.float32)
