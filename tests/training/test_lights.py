import pytest
import torch
from skimage import data

from restoration.tensors import stack_tiles
from training import lights
from training.lights import add_highlights, add_snow, add_stars


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flakes_are_round_and_soft(monkeypatch):
    monkeypatch.setattr(lights, "NUM_FLAKES", 1)
    drawn = add_snow(torch.zeros(60, 3, 64, 64), seeded(7))[:, 0]
    at_edge = torch.cat([drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]], dim=1).amax(dim=1)
    flakes = drawn[at_edge < 1e-3]
    assert len(flakes) > 20
    for flake in flakes:
        points = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")).flatten(1)
        spreads = torch.linalg.eigvalsh(torch.cov(points, aweights=flake.flatten()))
        assert spreads[1] < 1.05 * spreads[0]
        assert max(flake.diff(dim=0).abs().max(), flake.diff(dim=1).abs().max()) < 0.7 * flake.max()


def test_of_stars_there_are_many_faint_and_few_bright_in_a_night():
    photos = torch.full((12, 3, 96, 96), 0.5)
    drawn = add_stars(photos, seeded(1))
    night = drawn.median(dim=2).values.median(dim=2).values[..., None, None]
    assert night.max() < 0.3
    light = (drawn - night).mean(dim=1)
    is_peak = light == torch.nn.functional.max_pool2d(light, 3, stride=1, padding=1)
    num_faint, num_bright = (
        (is_peak & (light > low) & (light <= high)).sum() for low, high in ((0.03, 0.3), (0.6, 1.0))
    )
    assert num_bright > 5
    assert num_faint > 3 * num_bright


def test_a_brighter_star_is_larger():
    centres = (torch.full((1, 1, 1, 1), 16.0),) * 2
    photo = torch.zeros(1, 3, 32, 32)
    areas = [
        (lights._round_lights(centres, torch.ones(1, 1, 1, 1), torch.full((1, 1, 3, 1), light), photo) > 0.5).sum()
        for light in (0.8, 4.0)
    ]
    assert areas[1] > 2 * areas[0]


def test_highlights_only_lighten_and_are_white_in_their_middle():
    photos = stack_tiles([data.coffee()[100:164, 150:230]]).repeat(24, 1, 1, 1)
    change = add_highlights(photos, seeded(2)) - photos
    assert change.min() >= -1e-6
    middles = change.amax(dim=1).flatten(1).argmax(dim=1)
    there = (photos + change).flatten(2)[torch.arange(24), :, middles]
    assert (there.amin(dim=1) > 0.7).float().mean() > 0.8


@pytest.mark.parametrize(("level", "least_share"), [(0.8, 0.9), (0.02, 0.2)])
def test_highlights_lie_where_it_is_brighter_than_around_or_smooth_and_dark(level, least_share):
    """Around what is dark it is brighter than there: half of the highlights lie at its rim."""
    photos = torch.full((60, 3, 64, 64), 0.5)
    photos[:, :, 24:40, 36:52] = level  # a sixteenth of the area
    (y, x), _, _ = lights._places_that_shine(photos, seeded(3))
    assert ((y >= 24) & (y < 40) & (x >= 36) & (x < 52)).float().mean() > least_share
