import numpy as np
import pytest

from training.samples import NAMES, crop_sample, load_sample


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_there_without_a_network_and_in_colour(name):
    photo = load_sample(name)
    assert photo.dtype == np.uint8
    assert photo.shape[2] == 3
    assert crop_sample(name, 256).shape == (256, 256, 3)


def test_a_crop_larger_than_the_sample_is_as_much_as_there_is():
    assert crop_sample("chelsea", 400).shape == (300, 400, 3)
