from copy import deepcopy

import numpy as np
import pytest
import torch
from skimage import data

from restoration.architectures import build_generator
from restoration.device import DeviceGenerator
from training.samples import crop_sample
from training.seams import difference_of_cut, difference_of_grids, line_over_median, measure_seams, mirror

NOISE = np.random.default_rng(0).normal(0, 1, (960, 960)).astype(np.float32)


@pytest.fixture(scope="module")
def generator():
    """Small, untrained, and taking everything for damage."""
    torch.manual_seed(0)
    built = build_generator("detect-fill", {"detector_channels": [8] * 4, "filler_channels": [8] * 4}).eval()
    built.detector.head.weight.data.zero_()
    built.detector.head.bias.data.fill_(20.0)
    return built


def test_a_line_at_the_stride_stands_out_of_the_spectrum_noise_does_not():
    assert line_over_median(NOISE, 192) < 30
    lines = NOISE.copy()
    lines[:, ::192] += 20
    assert line_over_median(lines, 192) > 100
    assert line_over_median(lines.T, 192) > 100


def test_a_photo_is_mirrord_to_a_square():
    assert mirror(data.coffee(), 500).shape == (500, 500, 3)


def test_where_the_grid_lies_does_not_change_what_is_filled(generator):
    """The filler sees farther than any overlap; but its tiles follow the mask."""
    on_device = DeviceGenerator(deepcopy(generator), torch.device("cpu"), "float32")
    assert np.abs(difference_of_grids(mirror(crop_sample("astronaut", 256), 448), on_device)).max() == 0.0


def test_a_photo_that_is_cut_is_filled_anew_where_the_filler_sees_it(generator):
    on_device = DeviceGenerator(deepcopy(generator), torch.device("cpu"), "float32")
    difference = difference_of_cut(mirror(crop_sample("astronaut", 256), 448), on_device)
    assert difference.shape == (448 - 96 - 128,) * 2
    assert np.abs(difference).max() > 0.0


def test_a_generator_that_looks_at_each_sample_alone_fills_a_photo_that_is_cut_alike(generator):
    generator = deepcopy(generator)
    generator.filler.head.weight.data.zero_()
    generator.filler.head.bias.data.fill_(0.1)  # no level and a half, which either may round its own way
    on_device = DeviceGenerator(generator, torch.device("cpu"), "float32")
    assert np.abs(difference_of_cut(mirror(crop_sample("astronaut", 256), 448), on_device)).max() == 0.0


def test_the_worst_of_several_photos_is_reported(generator, bank, monkeypatch):
    monkeypatch.setattr("training.seams.SIDE_PX", 448)
    on_device = DeviceGenerator(generator, torch.device("cpu"), "float32")
    photos = [crop_sample("astronaut", 128), crop_sample("coffee", 128)]
    one, two = (measure_seams(photos, bank, on_device, num_photos=number) for number in (1, 2))
    assert set(one) == {"mean_levels", "smooth_levels", "line_over_median", "cut_mean_levels", "cut_smooth_levels"}
    assert all(two[name] >= one[name] >= 0.0 for name in one)
