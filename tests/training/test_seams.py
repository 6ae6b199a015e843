from copy import deepcopy

import numpy as np
import pytest
import torch
from skimage import data

from restoration.device import DeviceGenerator
from restoration.generator import build_generator
from training.cases import photo_of
from training.samples import crop_sample
from training.seams import difference_of_grids, line_over_median, measure_seams, mirror

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


def test_two_grids_of_a_generator_that_looks_at_each_sample_alone_agree(generator):
    generator = deepcopy(generator)
    generator.filler.head.weight.data.zero_()
    generator.filler.head.bias.data.fill_(0.1)  # no level and a half, which either grid may round its own way
    photo = photo_of(mirror(crop_sample("astronaut", 256), 448))
    assert np.abs(difference_of_grids(photo, DeviceGenerator(generator, torch.device("cpu"), "float32"))).max() == 0.0


def test_the_worst_of_several_photos_is_reported(generator, bank, monkeypatch):
    monkeypatch.setattr("training.seams.SIDE_PX", 448)
    on_device = DeviceGenerator(generator, torch.device("cpu"), "float32")
    photos = [crop_sample("astronaut", 128), crop_sample("coffee", 128)]
    one, two = (measure_seams(photos, bank, on_device, num_photos=number) for number in (1, 2))
    assert one.keys() == {"mean_levels", "smooth_levels", "line_over_median"}
    assert all(two[name] >= one[name] >= 0.0 for name in one)
