import numpy as np
import pytest
from scipy import ndimage

from training.marks import _film_lines, _needle_scratches, _parallel_scratches, draw_dust


def test_a_film_s_lines_run_along_the_film():
    rng = np.random.default_rng(0)
    for _ in range(10):
        opacity, _ = _film_lines(128, rng)
        along, across = (np.abs(np.diff(opacity, axis=axis)).mean() for axis in (0, 1))
        assert along < across


def test_light_and_dark_lines_lie_side_by_side():
    rng = np.random.default_rng(1)
    for draw in (_film_lines, _needle_scratches):
        tones = np.concatenate([tone[opacity > 0.2] for opacity, tone in (draw(128, rng) for _ in range(12))])
        assert 0.05 < (tones < 0.5).mean() < 0.8


@pytest.mark.parametrize("draw", [_needle_scratches, _parallel_scratches])
def test_scratches_vary_along_their_way(draw):
    """The opacity on a line's ridge, by its standard deviation over its mean."""
    variations = []
    for seed in range(20):
        opacity, _ = draw(128, np.random.default_rng(seed))
        is_ridge = opacity == ndimage.maximum_filter(opacity, 3)
        lines, num_lines = ndimage.label(opacity > 0.04, np.ones((3, 3)))
        ridges = [opacity[is_ridge & (lines == index)] for index in range(1, num_lines + 1)]
        variations += [ridge.std() / ridge.mean() for ridge in ridges if len(ridge) > 15]
    assert np.median(variations) > 0.28  # 0.21 where each line is drawn in one go, at its crossings and ends


def test_a_film_s_lines_vary_along_their_way():
    variations = []
    for seed in range(20):
        opacity, _ = _film_lines(128, np.random.default_rng(seed))
        of_columns = opacity.mean(axis=0)
        is_line = (of_columns == ndimage.maximum_filter(of_columns, 5)) & (of_columns > 0.03)
        along = ndimage.maximum_filter(opacity, (1, 5))[:, is_line]
        variations.extend(along.std(axis=0) / along.mean(axis=0))
    assert np.median(variations) > 0.35  # 0.29 where lines taper only, 0.18 where they do not even do that


def test_dust_has_few_specks_or_dozens_and_may_be_light_and_dark_at_once():
    rng = np.random.default_rng(3)
    drawn = [draw_dust(256, rng) for _ in range(20)]
    shares = np.array([(opacity > 0.2).mean() for opacity, _ in drawn])
    assert shares.max() > 5 * shares.min()
    is_mixed = [0.1 < (tone[opacity > 0.2] > 0.5).mean() < 0.9 for opacity, tone in drawn]
    assert 2 <= sum(is_mixed) <= 18
