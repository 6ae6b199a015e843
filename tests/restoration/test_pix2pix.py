"""The original's network has the original's figures."""

import pytest
import torch
from torch import nn

from restoration.pix2pix import Pix2Pix

from .test_generator import count_gflop, hole, layers_of, num_parameters, portrait, small


@pytest.fixture(scope="module")
def original() -> Pix2Pix:
    """The original's generator in its full size, shapes without values."""
    with torch.device("meta"):
        return Pix2Pix()


def test_pix2pix_has_the_original_s_parameters_and_cost(original):
    assert num_parameters(original) == 54_414_531
    assert count_gflop(original, (1, 3, 256, 256)) == pytest.approx(12.1, abs=0.05)


def test_pix2pix_goes_down_8_times(original):
    convolutions = layers_of(original, nn.Conv2d)
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert {(conv.kernel_size, conv.stride) for conv in convolutions} == {((4, 4), (2, 2))}
    assert [conv.padding_mode for conv in convolutions[:-1]] == ["reflect"] * 7
    assert [slope.negative_slope for slope in layers_of(original, nn.LeakyReLU)] == [0.2] * 7


def test_pix2pix_goes_up_8_times_to_a_tanh(original):
    convolutions = layers_of(original, nn.ConvTranspose2d)
    assert [conv.out_channels for conv in convolutions] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert {(conv.kernel_size, conv.stride) for conv in convolutions} == {((4, 4), (2, 2))}
    assert [conv.in_channels for conv in convolutions[1:]] == [1024, 1024, 1024, 1024, 512, 256, 128]
    assert all(len(layers_of(up, nn.ReLU)) == 1 for up in original.ups)
    assert isinstance(original.head[-1], nn.Tanh)


def test_pix2pix_normalises_every_layer_except_the_first_the_innermost_and_the_last(original):
    with_norm = [len(layers_of(block, nn.BatchNorm2d)) for block in (*original.downs, *original.ups)]
    assert with_norm == [0] + [1] * 6 + [1] * 7
    assert layers_of(original.bottleneck, nn.BatchNorm2d) == []
    assert layers_of(original.head, nn.BatchNorm2d) == []


def test_pix2pix_drops_half_in_the_first_three_ups_alone(original):
    assert [up[-1].p for up in original.ups] == [0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_pix2pix_takes_everything_for_damage_and_ignores_the_mask():
    generator, tiles = small("pix2pix"), portrait()
    with torch.inference_mode():
        assert torch.equal(generator.detect(tiles), torch.ones(1, 1, 256, 256))
        assert torch.equal(generator.fill(tiles, hole()), generator.fill(tiles, 1.0 - hole()))


def test_pix2pix_works_in_the_signed_range():
    generator, tiles = small("pix2pix"), portrait()
    with torch.inference_mode():
        signed = generator(tiles * 2.0 - 1.0)
        torch.testing.assert_close(generator.fill(tiles, hole()), (signed + 1.0) / 2.0)
