import numpy as np
import pytest

from training.wear import _bare, _lost_corner, _pin_holes, _torn_edge, _torn_hole, _worn_edges


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def sides(missing: np.ndarray, depth_px: int = 2) -> list[float]:
    """The share that is missing along each of the four edges."""
    return [float(missing[at].mean()) for at in _edges(depth_px)]


def _edges(depth_px: int) -> list[tuple[slice, slice]]:
    first, last, every = slice(depth_px), slice(-depth_px, None), slice(None)
    return [(first, every), (last, every), (every, first), (every, last)]


def test_a_worn_print_is_worn_all_around_and_unevenly(rng):
    for _ in range(6):
        missing = _worn_edges(128, rng) > 0
        assert min(sides(missing)) > 0.25
        assert not missing[50:78, 50:78].any()
        reach_px = missing[:64, 32:96].sum(axis=0)
        assert reach_px.std() > 0.2


def test_a_torn_edge_is_one_edge_and_a_lost_corner_one_corner(rng):
    for _ in range(6):
        assert max(sides(_torn_edge(128, rng) > 0)) > 0.3
        corner = _lost_corner(128, rng) > 0
        assert 1 <= sum(corner[y, x] for y in (0, -1) for x in (0, -1)) <= 2


@pytest.mark.parametrize("draw", [_torn_hole, _pin_holes])
def test_holes_are_small_and_somewhere(draw, rng):
    shares = [float((draw(128, rng) > 0).mean()) for _ in range(10)]
    assert max(shares) < 0.25
    assert sum(share > 0 for share in shares) >= 8


def test_torn_paper_shows_its_white_along_the_outline_and_what_is_behind_further_in(rng):
    depth = np.linspace(-0.2, 0.5, 128, dtype=np.float32)[None].repeat(128, axis=0)
    opacity, tone = _bare(depth, 0.05, rng, torn=0.6)
    assert opacity[:, depth[0] < -0.03].max() == 0.0
    assert opacity[:, depth[0] > 0.03].min() == 1.0
    assert tone[:, (depth[0] > 0.0) & (depth[0] < 0.01)].mean() > 0.6
    assert tone[:, depth[0] > 0.2].max() < 0.5
