import numpy as np
import pytest
import torch
from skimage import data

from restoration.device import DeviceGenerator
from restoration.generator import DetectFill, DetectFillConfig
from restoration.passes import GROWN_PX, TURNS, VERIFIED_PX, Seen, TilePass, look_turned
from restoration.tensors import stack_tiles
from restoration.windows import largest_within

CPU = torch.device("cpu")


def detector(*, shift: float) -> DeviceGenerator:
    """Small and untrained."""
    torch.manual_seed(0)
    config = DetectFillConfig(
        detector_channels=(8, 8, 8), filler_channels=(8, 8, 8, 8), detector_shift=shift, required_evidence=5.5
    )
    return DeviceGenerator(DetectFill(config), CPU, "float32")


def test_every_turn_has_its_inverse_and_no_two_are_alike():
    tile = torch.arange(18.0).view(1, 2, 3, 3)
    turned = [turn(tile) for turn, _ in TURNS]
    assert all(torch.equal(back(each), tile) for each, (_, back) in zip(turned, TURNS, strict=True))
    assert len({tuple(each.flatten().tolist()) for each in turned}) == len(TURNS)


def seen_in_turns(one_pass: TilePass, colour: np.ndarray, num_turns: int) -> np.ndarray:
    """The map once all of the photo was looked at in so many orientations."""
    seen, everywhere = Seen(colour, np.zeros(colour.shape[:2], np.uint8)), np.ones(colour.shape[:2], bool)
    for turn in range(num_turns):
        one_pass.look_in_turn(turn, [seen], [everywhere])
    return seen.damage_map


@pytest.mark.parametrize("num_turns", [1, 2, 4])
def test_a_map_of_several_orientations_is_the_mean_of_their_logits(num_turns):
    generator, colour = detector(shift=0.0), data.astronaut()[:256, :256]
    tiles = stack_tiles([colour])
    alone = [torch.logit(back(generator.detect(turn(tiles)))) for turn, back in TURNS[:num_turns]]
    expected = 255.0 * torch.sigmoid(torch.stack(alone).mean(dim=0))[0, 0].numpy()
    found = seen_in_turns(TilePass(generator), colour, num_turns)
    assert found.std() > 1.0
    assert np.abs(found - expected).max() < 0.6


def test_how_a_tile_is_held_hardly_matters_to_a_map_of_all_its_turns():
    """The four form no group: of two turned tiles only some orientations are the same."""
    one_pass, colour = TilePass(detector(shift=0.0)), data.astronaut()[:256, :256]
    differences = []
    for num_turns in (1, 4):
        upright, mirrored = (seen_in_turns(one_pass, each, num_turns) for each in (colour, colour[:, ::-1]))
        differences.append(np.abs(upright.astype(float) - mirrored[:, ::-1]).mean())
    once, turned = differences
    assert 0.0 < turned < once


@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_what_was_told_of_a_turned_tile_is_told_to_the_tile_that_is_turned_alike(turn):
    given = []

    def repeat(tiles, context=None):
        """No damage; what it tells is what it sees, and what it was told."""
        given.append((tiles, context))
        return torch.cat([torch.zeros_like(tiles[:, :1]), tiles[:, :1]], dim=1)

    tiles = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    told = look_turned(repeat, turn, tiles)[:, 1:]
    assert torch.equal(told, tiles[:, :1])  # turned back
    look_turned(repeat, turn, torch.rand(2, 3, 16, 16), told)
    assert torch.equal(given[1][1], TURNS[turn][0](tiles[:, :1]))


def test_only_what_is_suspect_and_a_little_around_it_is_looked_at_again():
    colour = data.astronaut()[:300, :300]
    one_pass = TilePass(detector(shift=2.5))
    (once, _), again = one_pass.look_once(colour), one_pass.detect(colour)
    suspects = one_pass.find_suspects(once)
    assert suspects.any()
    assert not suspects.all()
    assert (once != again)[suspects].any()
    assert np.array_equal(once[~suspects], again[~suspects])


def test_where_nothing_is_suspect_one_look_is_all():
    class Counting:
        batch_size, calls_at_once, detector_radius_px, required_evidence, conditions = 8, 1, 61, 5.5, ()
        num_context_planes, has_verifier = 0, False
        num_tiles = 0

        def detect(self, tiles, context=None):
            self.num_tiles += len(tiles)
            return torch.zeros(len(tiles), 1, 256, 256)

        def fill(self, tiles, mask, conditions=None):
            raise AssertionError

    generator = Counting()
    assert not TilePass(generator).detect(data.astronaut()).any()
    assert generator.num_tiles == 9


def test_suspects_are_grown_to_all_sides():
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    rows, columns = np.nonzero(largest_within(mask, GROWN_PX))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 28, 12, 28)


class Cascade:
    """Suspects what is light; its verifier takes everything for damage."""

    batch_size, calls_at_once, detector_radius_px, required_evidence, conditions = 8, 1, 61, 5.5, ()
    num_context_planes, has_verifier = 0, True

    def __init__(self, verifier_turns: int = 1) -> None:
        self.verifier_turns = verifier_turns
        self.num_verified = 0

    def detect(self, tiles, context=None):
        return (tiles[:, :1] > 0.9).float() * 0.5

    def verify(self, tiles, context=None):
        self.num_verified += len(tiles)
        return torch.ones_like(tiles[:, :1])


def test_the_verifier_decides_what_is_suspect_and_what_lies_near_and_nothing_else_is_damage():
    generator, colour = Cascade(), np.zeros((700, 700, 3), np.uint8)
    colour[350, 60] = 255
    damage_map = TilePass(generator).detect(colour)
    found = np.zeros((700, 700), bool)
    found[350 - VERIFIED_PX : 351 + VERIFIED_PX, 60 - VERIFIED_PX : 61 + VERIFIED_PX] = True
    assert np.array_equal(damage_map == 255, found)
    assert not damage_map[~found].any()
    assert 0 < generator.num_verified <= 4


def test_a_verifier_that_looks_in_two_orientations_is_as_sure_as_the_mean_of_both():
    class Fickle(Cascade):
        """Takes the left half of a tile for damage, however it is held."""

        def verify(self, tiles, context=None):
            super().verify(tiles)
            is_left = torch.arange(tiles.shape[3]) < tiles.shape[3] // 2
            return torch.where(is_left, 0.9, 0.1).expand_as(tiles[:, :1])

    colour = np.full((256, 256, 3), 255, np.uint8)
    maps = {}
    for num_turns in (1, 2):
        generator = Fickle(num_turns)
        maps[num_turns] = TilePass(generator).detect(colour)
        assert generator.num_verified == num_turns
    assert (maps[1] > 200).sum() == 256 * 128
    assert (maps[2] > 200).sum() == 128 * 128  # left when upright, and when turned
    assert (abs(maps[2].astype(int) - 128) <= 1).sum() == 2 * 128 * 128


def test_where_nothing_is_suspect_the_verifier_is_not_asked():
    generator = Cascade()
    assert not TilePass(generator).detect(np.zeros((300, 300, 3), np.uint8)).any()
    assert generator.num_verified == 0


def test_what_one_orientation_does_not_suspect_is_not_looked_at_in_the_next():
    class Finds(Cascade):
        """Only the left one of two things is suspect any more."""

        def verify(self, tiles, context=None):
            super().verify(tiles)
            return (tiles[:, :1] > 0.99).float() * 0.9

    generator, colour = Finds(verifier_turns=2), np.zeros((300, 900, 3), np.uint8)
    colour[150, 60], colour[150, 800] = 255, 240
    damage_map = TilePass(generator).detect(colour)
    assert generator.num_verified == 3
    assert damage_map[150, 60] == round(0.9 * 255)
    assert not damage_map[:, 100:].any()


def test_with_a_verifier_the_first_look_takes_half_as_many_tiles_and_the_map_is_the_same(monkeypatch):
    colour = np.zeros((1000, 1000, 3), np.uint8)
    colour[::190, ::97] = 255
    found = {}
    for overlap_px in (64, 128):
        monkeypatch.setattr("restoration.passes.FIRST_OVERLAP_PX", overlap_px)
        generator = Counts()
        found[overlap_px] = TilePass(generator).detect(colour), generator.num_detected
    assert np.array_equal(found[64][0], found[128][0])
    assert (found[64][1], found[128][1]) == (25, 49)


class Counts(Cascade):
    num_detected = 0

    def detect(self, tiles, context=None):
        self.num_detected += len(tiles)
        return super().detect(tiles)
