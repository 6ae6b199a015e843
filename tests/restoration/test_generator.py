"""The two generators: their figures, what they promise of their outputs, and what they are refused for."""

import dataclasses
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import save
from skimage import data
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restoration.errors import ReleaseInvalid
from restoration.generator import (
    MOST_DENOISER_RADIUS_PX,
    DetectFill,
    DetectFillConfig,
    Pix2Pix,
    build_generator,
    config_of,
    fill_smoothly,
    split_bands,
)
from restoration.passes import OVERLAP_PX
from restoration.tensors import to_model_range

from .small_generator import SMALL, make_generator

BANDS: dict[str, Any] = {"denoiser_bands": 3, "denoiser_dilations": (1, 1, 1)}
LARGEST = DetectFillConfig(
    filler_keeps=True, filler_prefills=True, detector_context=4, denoiser_channels=(48, 64, 96), **BANDS
)
SMALL_OF = {"detect-fill": SMALL, "pix2pix": {"channels": 2}}


def small(architecture: str):
    torch.manual_seed(0)
    return build_generator(architecture, SMALL_OF[architecture]).eval()


def portrait(side_px: int = 256) -> torch.Tensor:
    """(1, 3, side_px, side_px) in [0, 1]."""
    return to_model_range(data.astronaut()[:side_px, 100 : 100 + side_px])[None]


def hole(side_px: int = 256) -> torch.Tensor:
    """(1, 1, side_px, side_px), 1 in a square in the middle."""
    mask = torch.zeros(1, 1, side_px, side_px)
    mask[..., side_px // 4 : side_px // 2, side_px // 4 : side_px // 2] = 1.0
    return mask


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_gflop(call, *shapes: tuple[int, ...]) -> float:
    """Of one call on tensors of these shapes, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        call(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() / 1e9


def layers_of(network: nn.Module, kind: type[nn.Module]) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


# --- what both promise ------------------------------------------------------------------------------------------------


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


# --- detect-fill ------------------------------------------------------------------------------------------------------


def test_ours_stays_within_its_budget():
    with torch.device("meta"):
        generator = DetectFill(LARGEST)
    tile, plane, context = (1, 3, 256, 256), (1, 1, 256, 256), (1, 4, 128, 128)
    with torch.device("meta"):
        alone = DetectFill(DetectFillConfig(filler_keeps=True))
    assert count_gflop(alone.detect, tile) <= 2.0
    assert count_gflop(generator.detect, tile, context) <= 2.05  # see decision 0028
    assert count_gflop(generator.fill, tile, plane) <= 5.0
    assert count_gflop(generator.denoise, tile) <= 4.5
    assert num_parameters(generator) <= 8_000_000


def test_our_weights_fit_into_one_file_of_16_mebibytes():
    weights = {name: weight.half() for name, weight in DetectFill(LARGEST).state_dict().items()}
    assert len(save(weights)) <= 16 * 2**20


def test_ours_holds_nothing_that_is_known_to_leave_a_grid_or_seams():
    suspects = (
        nn.modules.conv._ConvTransposeNd,
        nn.modules.batchnorm._NormBase,
        nn.GroupNorm,
        nn.LayerNorm,
        nn.modules.dropout._DropoutNd,
    )
    assert [layer for suspect in suspects for layer in layers_of(DetectFill(LARGEST), suspect)] == []


def keeping(share_logit: float) -> DetectFill:
    """Its filler keeps such a share of what it sees, and paints nothing."""
    torch.manual_seed(0)
    generator = build_generator("detect-fill", {**SMALL, "filler_keeps": True}).eval()
    with torch.no_grad():
        for parameter in generator.filler.head.parameters():
            parameter.zero_()
        generator.filler.keep_head.bias.fill_(share_logit)
    return generator


@torch.inference_mode()
def test_a_filler_can_keep_what_it_sees_to_the_last_bit_in_bfloat16_too():
    tiles, mask = portrait(), hole()
    with torch.autocast("cpu", torch.bfloat16):
        seen = keeping(50.0).fill(tiles, mask)
        erased = keeping(50.0).fill(tiles, mask, torch.zeros_like(mask))
        painted = keeping(-50.0).fill(tiles, mask)
    assert torch.allclose(seen, tiles, atol=1e-6)
    hidden = mask.expand_as(tiles) > 0
    assert torch.equal(erased[hidden], torch.full_like(erased[hidden], 0.5))
    assert torch.allclose(painted, torch.full_like(tiles, 0.5))


# --- what is filled smoothly -----------------------------------------------------------------------------------------


def test_what_is_known_stays_and_a_slope_goes_on_under_the_mask():
    slope = torch.linspace(0.2, 0.8, 256).expand(2, 3, 256, 256)
    mask = hole().expand(2, -1, -1, -1)
    damaged = torch.where(mask > 0, torch.rand(slope.shape), slope)
    filled = fill_smoothly(damaged, mask)
    assert torch.equal(filled[:, :, :64], damaged[:, :, :64])
    inside = (slice(None), slice(None), slice(64, 128), slice(64, 128))
    assert (filled[inside] - slope[inside]).abs().max() < 0.03
    assert torch.equal(fill_smoothly(damaged, torch.ones_like(mask)), torch.full_like(slope, 0.5))


def test_a_smooth_fill_is_no_worse_than_classical_inpainting_on_scratches():
    tiles, mask = portrait(), torch.zeros(1, 1, 256, 256)
    for at in range(8, 248, 24):
        mask[..., at : at + 3, :] = 1.0
        mask[..., :, at : at + 2] = 1.0
    errors = (fill_smoothly(torch.lerp(tiles, torch.ones_like(tiles), mask), mask) - tiles)[mask.expand_as(tiles) > 0]
    picture = (portrait()[0].permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    telea = cv2.inpaint(picture, mask[0, 0].numpy().astype("uint8"), 3, cv2.INPAINT_TELEA).astype("float64")
    of_telea = (telea - picture)[mask[0, 0].numpy() > 0] / 255.0
    assert errors.square().mean() < (of_telea**2).mean()


@torch.inference_mode()
def test_a_filler_can_take_the_smooth_fill_to_the_last_bit_in_bfloat16_too():
    generator = build_generator("detect-fill", {**SMALL, "filler_keeps": True, "filler_prefills": True}).eval()
    for parameter in generator.filler.head.parameters():
        parameter.zero_()
    generator.filler.keep_head.bias.fill_(-50.0)
    generator.filler.take_head.bias.fill_(50.0)
    with torch.autocast("cpu", torch.bfloat16):
        filled = generator.fill(portrait(), hole())
    assert torch.allclose(filled, fill_smoothly(portrait(), hole()), atol=1e-6)


def test_a_filler_that_takes_without_keeping_is_refused():
    with pytest.raises(ReleaseInvalid, match="filler_prefills needs filler_keeps"):
        build_generator("detect-fill", {**SMALL, "filler_prefills": True})


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (96, 96), (64, 160), (288, 32), (32, 256)])
def test_ours_takes_any_multiple_of_32(height_px, width_px):
    generator = build_generator("detect-fill", {**SMALL, "filler_keeps": True, "filler_prefills": True}).eval()
    tiles, mask = torch.rand(1, 3, height_px, width_px), torch.ones(1, 1, height_px, width_px)
    with torch.inference_mode():
        assert generator.detect(tiles).shape == mask.shape
        assert generator.fill(tiles, mask).shape == tiles.shape


@pytest.mark.parametrize(
    "config", [{}, SMALL, {"detector_channels": (8, 8), "detector_dilations": (1, 2)}], ids=["ours", "small", "shallow"]
)
def test_the_damage_map_depends_on_nothing_beyond_the_detector_s_radius(config):
    generator = build_generator("detect-fill", config)
    cell_px = 2 ** len(generator.config.detector_channels)
    farthest_px = 0
    for middle in range(192, 192 + cell_px):
        tiles = torch.rand(1, 3, 384, 384, requires_grad=True)
        logits, _ = generator.detect_logits(tiles)
        logits[0, 0, middle, middle].backward()
        rows_and_columns = tiles.grad[0].abs().sum(dim=0).nonzero()
        farthest_px = max(farthest_px, int((rows_and_columns - middle).abs().max()))
    assert farthest_px == generator.detector_radius_px


def test_what_is_told_of_a_copy_reaches_no_farther_than_what_is_seen():
    generator = make_generator(detector_channels=(8, 12, 16), detector_context=2)
    torch.nn.init.normal_(generator.detector.context_stem.weight)
    told = torch.rand(1, 2, 192, 192, requires_grad=True)
    logits, _ = generator.detect_logits(torch.rand(1, 3, 384, 384), told)
    logits[0, 0, 192, 192].backward()
    rows_and_columns = told.grad[0].abs().sum(dim=0).nonzero()
    assert len(rows_and_columns) > 100
    assert 2 * int((rows_and_columns - 96).abs().max()) <= generator.detector_radius_px


def test_a_detector_that_tells_starts_as_one_that_does_not():
    """So a release without context is gone on from without a step back."""
    alone, telling = make_generator(), make_generator(detector_context=3)
    telling.load_state_dict(alone.state_dict(), strict=False)
    tiles, told = portrait().repeat(2, 1, 1, 1), torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        answer = telling.detect(tiles, told)
        assert answer.shape == (2, 4, 256, 256)
        assert torch.equal(answer[:, :1], alone.detect(tiles))
        assert 0.0 <= answer.min() < answer.max() <= 1.0


def test_a_correction_depends_on_nothing_beyond_the_denoiser_s_radius():
    generator = build_generator("detect-fill", {"denoiser_channels": (8, 8, 8), "denoiser_dilations": (1, 1, 1)})
    nn.init.normal_(generator.denoiser.head.weight)
    farthest_px = 0
    for middle in range(96, 104):
        tiles = torch.rand(1, 3, 192, 192, requires_grad=True)
        generator.denoise(tiles)[0, 0, middle, middle].backward()
        rows_and_columns = tiles.grad[0].abs().sum(dim=0).nonzero()
        farthest_px = max(farthest_px, int((rows_and_columns - middle).abs().max()))
    assert farthest_px == generator.denoiser.radius_px <= MOST_DENOISER_RADIUS_PX == OVERLAP_PX // 2


def test_the_bands_of_detail_and_what_is_left_are_the_picture_again():
    planes = torch.rand(2, 3, 40, 56)
    bands, rest = split_bands(planes, 3)
    assert len(bands) == 3
    assert torch.allclose(sum(bands, rest), planes, atol=1e-6)
    deviations = [float(each.std()) for each in (*bands, rest)]
    assert deviations == sorted(deviations, reverse=True)  # of white noise most is in the finest band


def test_a_denoiser_that_takes_every_band_for_noise_leaves_a_softer_picture_of_the_same_colours():
    generator = build_generator("detect-fill", {"denoiser_channels": (8, 8), "denoiser_bands": 2})
    generator.denoiser.head.bias.data[12:] = 100.0
    tiles = torch.rand(1, 3, 64, 64)
    _, rest = split_bands(tiles, 2)
    assert torch.allclose(tiles + generator.denoise(tiles), rest, atol=1e-5)


def test_a_denoiser_is_there_if_the_config_says_so():
    assert not build_generator("detect-fill", {}).has_denoiser
    assert build_generator("detect-fill", {"denoiser_channels": [8, 8]}).has_denoiser
    assert not build_generator("pix2pix", {"channels": 2}).has_denoiser


def test_ours_looks_no_farther_than_half_of_the_overlap_of_two_tiles():
    assert DetectFill().detector_radius_px <= OVERLAP_PX // 2


def test_erased_samples_cannot_influence_the_fill():
    generator, tiles, mask = make_generator(), portrait(), hole()
    scratched = torch.where(mask > 0, torch.rand(tiles.shape, generator=torch.Generator().manual_seed(1)), tiles)
    erased = torch.zeros_like(mask)
    with torch.inference_mode():
        assert torch.equal(generator.fill(tiles, mask, erased), generator.fill(scratched, mask, erased))


def test_the_filler_may_look_through_the_mask_unless_it_is_told_not_to():
    generator, tiles, mask = make_generator(), portrait(), hole()
    brighter = torch.where(mask > 0, (tiles + 0.3).clamp(max=1.0), tiles)
    with torch.inference_mode():
        seen = generator.fill(tiles, mask)
        assert not torch.equal(seen, generator.fill(brighter, mask))
        assert torch.equal(seen, generator.fill(tiles, mask, torch.ones_like(mask)))
        assert not torch.equal(seen, generator.fill(tiles, mask, torch.zeros_like(mask)))


def test_samples_outside_the_mask_are_seen_whatever_the_condition_says_of_them():
    generator, tiles = make_generator(), portrait()
    with torch.inference_mode():
        nothing = torch.zeros(1, 1, 256, 256)
        assert torch.equal(generator.fill(tiles, nothing, nothing), generator.fill(tiles, nothing, nothing + 1.0))


def test_before_clipping_a_sample_out_of_range_still_has_a_gradient():
    generator, tiles, mask = make_generator(), portrait(), hole()
    generator.filler.head.bias.data.fill_(5.0)
    generator.fill_unclipped(tiles, mask).mean().backward()
    assert generator.fill(tiles, mask).min() == 1.0
    assert generator.filler.head.bias.grad.abs().min() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_no_checkerboard_is_there_to_unlearn(seed):
    """An untrained network draws 2 x 2 squares of one value each: the period of the pixel shuffle is not in them."""
    torch.manual_seed(seed)
    generator = build_generator("detect-fill", SMALL)
    with torch.inference_mode():
        logits, _ = generator.detect_logits(portrait())
        picture = generator.fill_unclipped(portrait(), hole())
    for plane in (logits, picture):
        assert plane.std() > 0.01
        for row, column in ((0, 1), (1, 0), (1, 1)):
            torch.testing.assert_close(plane[..., row::2, column::2], plane[..., ::2, ::2])


def test_untrained_activations_neither_vanish_nor_explode():
    torch.manual_seed(0)
    generator = DetectFill()
    with torch.inference_mode():
        logits, _ = generator.detect_logits(portrait(64))
    assert 0.01 < logits.std() < 20.0


# --- pix2pix ----------------------------------------------------------------------------------------------------------


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
