import numpy as np
import pytest
import torch
from skimage import data

from restoration.tensors import from_signed_range, stack_tiles, to_model_range, to_samples, to_signed_range


def test_samples_come_back_as_they_were():
    samples = data.astronaut()
    assert np.array_equal(to_samples(to_model_range(samples)), samples)


def test_every_level_has_its_own_value_and_comes_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    picture = to_model_range(levels)
    assert picture.shape == (3, 16, 16)
    assert picture.dtype == torch.float32
    assert picture.unique().numel() == 256
    assert np.array_equal(to_samples(picture), levels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_is_0_and_white_is_1_at_either_depth(dtype):
    samples = np.array([[[0, np.iinfo(dtype).max]]], dtype)
    assert to_model_range(samples).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.bool_])
def test_samples_of_an_unknown_range_are_refused(dtype):
    with pytest.raises(TypeError, match="expected uint8 or uint16"):
        to_model_range(np.zeros((4, 4, 3), dtype))


def test_what_lies_outside_the_range_is_clipped_not_wrapped_around():
    picture = torch.tensor([-0.2, 0.0, 1.0, 1.3]).view(1, 1, 4)
    assert to_samples(picture).flatten().tolist() == [0, 0, 255, 255]


def test_values_are_rounded_to_the_nearest_level():
    picture = torch.tensor([0.49, 0.51, 99.4, 99.6]).div(255.0).view(1, 1, 4)
    assert to_samples(picture).flatten().tolist() == [0, 1, 99, 100]


def test_samples_are_left_as_they_were_and_may_be_a_read_only_view():
    samples = data.astronaut()[::2, ::-1]
    samples.flags.writeable = False
    to_model_range(samples).zero_()
    assert samples.any()


def test_tiles_are_stacked_in_order():
    tiles = [data.astronaut()[:64, :64], data.coffee()[:64, :64]]
    batch = stack_tiles(tiles)
    assert batch.shape == (2, 3, 64, 64)
    assert np.array_equal(to_samples(batch[1]), tiles[1])


def test_signed_range_is_from_minus_1_to_1_and_back():
    tiles = torch.tensor([0.0, 0.5, 1.0])
    assert to_signed_range(tiles).tolist() == [-1.0, 0.0, 1.0]
    assert torch.equal(from_signed_range(to_signed_range(tiles)), tiles)
