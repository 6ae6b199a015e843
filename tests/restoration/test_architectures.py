"""What all generators promise, and what they are refused for."""

import dataclasses

import pytest
import torch

from restoration.architectures import build_generator, config_of
from restoration.errors import ReleaseInvalid

from .test_generator import SMALL_OF, hole, portrait, small


@pytest.mark.parametrize("architecture", SMALL_OF)
def test_detect_gives_a_map_and_fill_a_picture_in_range(architecture):
    generator, tiles = small(architecture), portrait().repeat(2, 1, 1, 1)
    with torch.inference_mode():
        damage_map = generator.detect(tiles)
        picture = generator.fill(tiles, hole().repeat(2, 1, 1, 1))
    assert damage_map.shape == (2, 1, 256, 256)
    assert picture.shape == (2, 3, 256, 256)
    for plane in (damage_map, picture):
        assert plane.dtype == torch.float32
        assert plane.min() >= 0.0
        assert plane.max() <= 1.0


@pytest.mark.parametrize("architecture", SMALL_OF)
def test_answers_are_float32_when_the_network_computes_in_bfloat16(architecture):
    generator, tiles = small(architecture), portrait()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert generator.detect(tiles).dtype == torch.float32
        assert generator.fill(tiles, hole()).dtype == torch.float32


@pytest.mark.parametrize("architecture", SMALL_OF)
def test_the_config_in_a_manifest_builds_the_same_network(architecture):
    generator = small(architecture)
    built = build_generator(architecture, config_of(generator))
    assert built.config == generator.config
    assert {name: weight.shape for name, weight in built.state_dict().items()} == {
        name: weight.shape for name, weight in generator.state_dict().items()
    }


def test_an_unknown_architecture_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ReleaseInvalid, match=r"'diffusion' is not known.*detect-fill, pix2pix"):
        build_generator("diffusion", {})


@pytest.mark.parametrize("architecture", SMALL_OF)
def test_an_unknown_config_field_is_refused_by_name(architecture):
    with pytest.raises(ReleaseInvalid, match="unknown fields num_heads"):
        build_generator(architecture, {"num_heads": 8})


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("detect-fill", {"detector_channels": 32}),
        ("detect-fill", {"filler_channels": []}),
        ("detect-fill", {"filler_channels": [8, 0, 16, 24]}),
        ("detect-fill", {"detector_channels": [8, 8, 8, 8, 8, 8]}),  # cells of 64 px, where tiles are multiples of 32
        ("detect-fill", {"detector_dilations": [1, 0]}),
        ("detect-fill", {"verifier_dilations": [-1]}),
        ("detect-fill", {"required_evidence": 10**400}),
        ("detect-fill", {"filler_channels": [8, "12", 16, 24]}),
        ("detect-fill", {"required_evidence": float("inf")}),
        ("detect-fill", {"detector_shift": float("nan")}),
        ("detect-fill", {"detector_scale": float("inf")}),
        ("detect-fill", {"detector_scale": 0.0}),
        ("detect-fill", {"denoiser_channels": (8, 8, 8, 8)}),  # it would see farther than tiles overlap
        ("pix2pix", {"channels": -1}),
        ("pix2pix", {"dropout": 2.0}),
    ],
)
def test_a_config_that_no_network_can_be_built_from_is_refused(architecture, config):
    with pytest.raises(ReleaseInvalid, match="cannot be built"):
        build_generator(architecture, config)


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small("pix2pix").config.channels = 3
