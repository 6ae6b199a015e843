import pytest
import torch
from skimage import data

from restoration.tensors import stack_tiles
from training.innocent import add_borders, add_lattice, add_margins, add_objects, add_wires
from training.lights import add_highlights, add_snow, add_stars
from training.strands import add_strands

DRAWS = (add_wires, add_lattice, add_snow, add_borders, add_highlights, add_strands)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """(24, 3, 64, 80) in [0, 1], one crop of a photograph many times over."""
    return stack_tiles([data.coffee()[100:164, 150:230]]).repeat(24, 1, 1, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", DRAWS)
def test_each_is_drawn_onto_nearly_every_photo_it_is_given_and_leaves_part_of_it(photos, draw):
    drawn = draw(photos, seeded(1))
    assert drawn.shape == photos.shape
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    changed = ((drawn - photos).abs().amax(dim=1) > 0.05).float().mean(dim=(1, 2))
    assert (changed > 0.005).float().mean() > 0.7
    assert changed.median() < 0.8
    assert draw(photos, seeded(1)).equal(drawn)
    assert not draw(photos, seeded(2)).equal(drawn)


@pytest.mark.parametrize("add", [add_objects, add_margins])
def test_most_photos_are_left_as_they_are(photos, add):
    many = photos.repeat(10, 1, 1, 1)
    changed = (add(many, seeded(3)) != many).flatten(1).any(dim=1).float().mean()
    assert 0.02 < changed < 0.3


def test_a_border_lies_at_the_edge_and_not_in_the_middle(photos):
    changed = ((add_borders(photos, seeded(5)) - photos).abs().amax(dim=1) > 0.05).float().mean(dim=0)
    edge = torch.cat([changed[0], changed[-1], changed[:, 0], changed[:, -1]]).mean()
    assert edge > 0.5
    assert changed[24:40, 30:50].max() == 0.0


def test_a_wire_runs_from_edge_to_edge_and_keeps_its_tone():
    drawn = add_wires(torch.ones(60, 3, 96, 96), seeded(6))[:, 0]
    darkest = torch.stack([drawn.amin(dim=1), drawn.amin(dim=2)], dim=1).flatten(0, 1)  # of each column, of each row
    runs_through = darkest[(darkest < 0.5).all(dim=1)]
    assert len(runs_through) > 10
    assert (runs_through.std(dim=1) < 0.15).all()


def test_bars_of_a_lattice_are_evenly_spaced():
    """Its brightness along a line goes up and down in one rhythm: one frequency, with its overtones, has most of it."""
    drawn = add_lattice(torch.zeros(60, 3, 128, 128), seeded(8)).mean(dim=1)
    spectra = torch.fft.rfft2(drawn - drawn.mean(dim=(1, 2), keepdim=True)).abs().square()
    spectra[:, :4, :4] = spectra[:, -3:, :4] = 0.0  # where on the picture the lattice lies
    strongest = spectra.flatten(1).sort(dim=1, descending=True).values
    share = strongest[:, :150].sum(dim=1) / strongest.sum(dim=1)  # of over 8,000 frequencies
    assert share.median() > 0.6


@pytest.mark.parametrize("draw", [add_highlights, add_stars, add_strands])
def test_on_a_grey_photo_they_are_grey(draw):
    drawn = draw(torch.rand(8, 1, 64, 64, generator=seeded(9)).expand(-1, 3, -1, -1), seeded(10))
    assert (drawn.amax(dim=1) - drawn.amin(dim=1)).max() < 1e-5
