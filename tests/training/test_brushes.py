import numpy as np

from training.brushes import (
    cell_noise,
    crack_path,
    distances_px,
    draw_scratch,
    draw_varying_path,
    ray_noise,
    rough_noise,
    smooth_step,
    soft_noise,
    tapering,
)

ACROSS = np.stack([np.linspace(0, 95, 49), np.full(49, 48.0)], axis=1)
"""A straight way from the left to the right of 96 px."""


def canvas() -> np.ndarray:
    return np.zeros((96, 96), np.float32)


def test_noise_fills_its_range_and_is_as_smooth_as_asked():
    rng = np.random.default_rng(0)
    wide, narrow = (soft_noise(96, scale, rng) for scale in (0.3, 0.02))
    assert wide.min() == narrow.min() == 0.0
    assert wide.max() == narrow.max() == 1.0
    assert np.abs(np.diff(wide)).mean() < 0.3 * np.abs(np.diff(narrow)).mean()
    along, across = (np.abs(np.diff(soft_noise(96, (0.3, 0.02), rng), axis=axis)).mean() for axis in (0, 1))
    assert along < 0.3 * across
    assert rough_noise(96, rng).dtype == np.float32


def test_a_step_rises_or_falls_between_its_ends():
    at = np.array([0.0, 0.2, 0.5, 0.8, 1.0], np.float32)
    assert smooth_step(0.2, 0.8, at).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert smooth_step(0.8, 0.2, at).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_widths_and_values_may_change_along_the_way():
    line = canvas()
    draw_varying_path(line, ACROSS, np.linspace(1, 9, 48), np.linspace(1.0, 0.3, 48))
    assert (line[:, 10] > 0.1).sum() < (line[:, 85] > 0.1).sum()
    assert line[:, 10].max() > line[:, 85].max() > 0.2


def test_a_scratch_tapers_off_at_both_ends():
    for seed in range(8):
        scratch = canvas()
        draw_scratch(scratch, ACROSS, 2.0, 1.0, np.random.default_rng(seed))
        assert scratch[:, [0, 1, 94, 95]].max() < 0.3 < scratch.max()
    assert tapering(50, np.random.default_rng(0))[[0, -1]].tolist() == [0.0, 0.0]


def test_a_crack_is_straight_on_the_whole_and_jagged_in_detail():
    start = np.array([10.0, 300.0])
    path = crack_path(600, start, 0.0, 0.9, np.random.default_rng(0))
    assert path[0].tolist() == start.tolist()
    steps = np.diff(path, axis=0)
    assert np.hypot(*(path[-1] - path[0])) > 0.6 * np.hypot(*steps.T).sum()
    assert np.abs(np.diff(np.arctan2(steps[:, 1], steps[:, 0]))).mean() > 0.3


def test_distances_are_of_the_picture_s_own_pixels():
    lines = np.zeros((80, 80), np.uint8)
    lines[:, 40] = 255
    apart = distances_px(lines)
    assert apart.shape == (40, 40)
    assert abs(float(apart[20, 30]) - 10.0) < 0.6
    assert distances_px(np.zeros_like(lines)).min() > 1000


def test_fibres_run_across_an_outline_and_cells_are_flat():
    rng = np.random.default_rng(0)
    outline = np.zeros((64, 64), bool)
    outline[:, 32] = True
    rays = ray_noise(outline, rng)
    assert np.ptp(rays, axis=1).max() == 0.0
    assert rays[:, 0].std() > 0.2
    assert not ray_noise(np.zeros_like(outline), rng).any()
    assert len(np.unique(cell_noise(64, 30, rng))) <= 30
