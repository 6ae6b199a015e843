import numpy as np

from training.marks import _film_lines, _needle_scratches, draw_dust, draw_hairlines


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


def test_hairlines_vary_along_their_way():
    rng = np.random.default_rng(2)
    opacities = np.concatenate([opacity[opacity > 0.1] for opacity, _ in (draw_hairlines(128, rng) for _ in range(10))])
    assert opacities.std() > 0.15


def test_dust_has_few_specks_or_dozens_and_may_be_light_and_dark_at_once():
    rng = np.random.default_rng(3)
    drawn = [draw_dust(256, rng) for _ in range(20)]
    shares = np.array([(opacity > 0.2).mean() for opacity, _ in drawn])
    assert shares.max() > 5 * shares.min()
    is_mixed = [0.1 < (tone[opacity > 0.2] > 0.5).mean() < 0.9 for opacity, tone in drawn]
    assert 2 <= sum(is_mixed) <= 18
