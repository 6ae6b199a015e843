import pytest
import torch
from torch import nn

from training.discriminator import PatchGAN, PatchGANConfig


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_the_original_s_figures():
    network = PatchGAN(3)
    assert [conv.in_channels for conv in convolutions(network)] == [6, 64, 128, 256, 512]
    assert [conv.out_channels for conv in convolutions(network)] == [64, 128, 256, 512, 1]
    assert [conv.stride[0] for conv in convolutions(network)] == [2, 2, 2, 1, 1]
    assert {conv.kernel_size for conv in convolutions(network)} == {(4, 4)}
    assert {conv.padding_mode for conv in convolutions(network)} == {"reflect"}


def test_every_layer_is_normalised_except_the_first():
    network = PatchGAN(3)
    normalised = [any(isinstance(module, nn.BatchNorm2d) for module in layer.modules()) for layer in network.layers]
    assert normalised == [False, True, True, True]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.head.modules())


def test_ours_bounds_the_layers_gain_instead_of_normalising_tiles():
    network = PatchGAN(4, PatchGANConfig(channels=(4, 8, 8, 8), norm="spectral"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert [hasattr(layer[0], "weight_orig") for layer in network.layers] == [False, True, True, True]


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_each_patch_gets_a_logit_and_each_layer_shows_its_features(norm):
    network = PatchGAN(3, PatchGANConfig(channels=(4, 8, 12, 16), norm=norm))
    logits, features = network(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 1, 6, 6)
    assert [tuple(plane.shape[1:]) for plane in features] == [(4, 32, 32), (8, 16, 16), (12, 8, 8), (16, 7, 7)]


def test_a_patch_is_judged_by_its_surroundings_alone():
    torch.manual_seed(0)
    network = PatchGAN(3, PatchGANConfig(channels=(4, 8, 8, 8))).eval()
    condition, candidate = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)
    changed = candidate.clone()
    changed[..., :16, :16] += 0.5
    with torch.inference_mode():
        moved = network(condition, candidate)[0] != network(condition, changed)[0]
    assert moved[..., :2, :2].all()
    assert not moved[..., 8:, :].any()
    assert not moved[..., :, 8:].any()
