import torch

from restoration.unets import soften
from training import strands
from training.strands import add_strands, edge_softness_px


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strands_are_light_on_dark_and_dark_on_light():
    for level, sign in ((0.1, 1.0), (0.9, -1.0)):
        photos = torch.full((20, 3, 64, 64), level)
        change = sign * (add_strands(photos, seeded(1)) - photos).mean(dim=1)
        assert (change.amax(dim=(1, 2)) > 0.1).float().mean() > 0.8
        assert change.min() > -0.01


def test_four_to_eight_leave_one_place_and_are_apart_at_their_tips():
    covers = strands._draw_tuft(torch.zeros(20, 3, 96, 96), seeded(2))
    num_drawn = (covers.amax(dim=(2, 3)) > 0.05).sum(dim=1)
    assert num_drawn.max() <= 8
    assert num_drawn.float().median() >= 4
    place, x, y, _ = strands._plant(20, 96, 96, seeded(2))
    assert place.diff(dim=1).min() > 0.0
    roots = torch.cat([x, y], dim=2)[..., 0]
    assert torch.cdist(roots, roots).max() < 0.35 * 96


def test_a_strand_tapers_to_its_tip():
    """It hides less near its tip than near its root."""
    covers = strands._draw_tuft(torch.zeros(20, 3, 96, 96), seeded(3))
    _, x, y, _ = strands._plant(20, 96, 96, seeded(3))
    steps = torch.arange(96.0) - 48
    away_px = torch.hypot(steps.view(1, 1, 1, -1) - x, steps.view(1, 1, -1, 1) - y)
    num_seen = 0
    for cover, distance_px in zip(covers.flatten(0, 1), away_px.flatten(0, 1), strict=True):
        if cover.sum() > 10:
            num_seen += 1
            far_px = distance_px[cover > 0.05].max()
            near, far = (cover[part].amax() for part in (distance_px < 0.6 * far_px, distance_px > 0.9 * far_px))
            assert far < near
    assert num_seen > 40


def test_softness_is_that_of_the_photos_own_edges():
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1.0
    soft = soften(soften(edge))
    assert edge_softness_px(edge) < 0.5
    assert 0.9 < edge_softness_px(soft) < 1.3  # the mean of three pixels, twice: 1.15 px
