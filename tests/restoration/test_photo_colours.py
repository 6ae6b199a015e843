"""From samples to what a generator sees, and back."""

import numpy as np
import pytest

from restoration.photo_colours import Cmyk, Direct, Indexed, grey_levels, to_8_bit, to_depth

from .profiles import SRGB, ink_profile

OPAQUE = np.full(1, 255, np.uint8)


def test_eight_bit_colour_is_seen_without_a_copy():
    samples = np.zeros((5, 4, 4), np.uint8)
    assert np.shares_memory(Direct(3, has_alpha=True).see(samples), samples)


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight_and_back():
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_8_bit(to_depth(every, np.dtype(np.uint16))), every)
    assert to_8_bit(np.array([128, 129, 65535 - 128, 65535 - 129], np.uint16)).tolist() == [0, 1, 255, 254]


def test_a_partial_repair_is_mixed_at_the_photos_own_depth():
    samples = np.array([[1000, 2000, 3001, 7]], np.uint16)
    painted = Direct(3, has_alpha=True).paint(np.array([[255, 255, 255]], np.uint8), samples, np.array([51], np.uint8))
    assert painted.tolist() == [[13907, 14707, 15508, 7]]  # a fifth of white; alpha stays


def test_white_is_zero_is_seen_as_white_and_painted_so():
    model = Direct(1, has_alpha=False, is_inverted=True)
    assert model.see(np.zeros((1, 1, 1), np.uint16)).tolist() == [[[255, 255, 255]]]
    black = model.paint(np.zeros((1, 3), np.uint8), np.zeros((1, 1), np.uint16), OPAQUE)
    assert black.tolist() == [[65535]]
    assert model.spell_out(np.full((1, 1, 1), 65535, np.uint16)).tolist() == [[[0]]]


def test_one_bit_takes_black_or_white_whichever_is_nearer():
    model = grey_levels(1)
    greys = np.array([[100] * 3, [200] * 3], np.uint8)
    assert model.paint(greys, np.zeros((2, 1), np.uint8), OPAQUE.repeat(2)).tolist() == [[0], [1]]
    assert grey_levels(1, is_inverted=True).see(np.zeros((1, 1, 1), np.uint8)).max() == 255


def test_a_palette_gives_its_nearest_colour_of_the_opacity_that_was_there():
    red, clear_red, blue = (255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 255, 255)
    model = Indexed(bytes((*clear_red, *red, *blue)), "palette")
    nearly_red = np.array([[240, 10, 0]] * 2, np.uint8)
    assert model.paint(nearly_red, np.array([[2], [0]], np.uint8), OPAQUE.repeat(2)).tolist() == [[1], [0]]


def test_inks_go_through_their_profile_and_back():
    model = Cmyk(ink_profile())
    colours = np.array([[200, 100, 50], [128, 128, 128], [30, 90, 200], [250, 250, 250]], np.uint8)
    inks = model.paint(colours, np.zeros((4, 4), np.uint8), OPAQUE.repeat(4))
    assert np.abs(model.see(inks[None])[0].astype(int) - colours).max() <= 12
    assert inks[1, 3] > 80, "grey is printed in black, as the profile says"


def test_a_profile_that_is_not_of_inks_is_left_out():
    assert Cmyk(SRGB).profile is None
    assert Cmyk(SRGB).see(np.array([[[255, 0, 0, 0]]], np.uint8)).tolist() == [[[0, 255, 255]]]


@pytest.mark.parametrize("model", [Cmyk(), grey_levels(4), Direct(3, has_alpha=False)])
def test_models_that_mean_the_same_are_equal(model):
    assert model == type(model)(**{name: getattr(model, name) for name in model.__dataclass_fields__})
