import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data

from restoration.errors import DataError
from training.metrics import LPIPS, detection_scores, exact_share, mean_error, psnr, ssim

PORTRAIT = data.astronaut()[:96, 150:246]
LEFT = np.arange(96)[None, :].repeat(96, axis=0) < 48
NOWHERE = np.zeros((96, 96), bool)


def shifted(levels: int) -> np.ndarray:
    """Every sample differs by so many levels."""
    return np.where(PORTRAIT < 128, PORTRAIT + levels, PORTRAIT - levels).astype(np.uint8)


@pytest.mark.parametrize(("levels", "expected_db"), [(1, 48.1308), (10, 28.1308), (100, 8.1308)])
def test_psnr_of_a_known_difference(levels, expected_db):
    assert psnr(shifted(levels), PORTRAIT) == pytest.approx(expected_db, abs=1e-3)


def test_psnr_of_opposites_is_0_and_of_equals_is_finite():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr(black, white) == psnr(white, black) == 0.0
    assert psnr(PORTRAIT, PORTRAIT) == 100.0


def test_ssim_of_equals_is_1_and_falls_with_noise():
    noise = np.random.default_rng(0).normal(0, 1, PORTRAIT.shape)
    noisy = [np.clip(PORTRAIT + noise * sigma, 0, 255).astype(np.uint8) for sigma in (5, 20, 60)]
    scores = [ssim(picture, PORTRAIT) for picture in (PORTRAIT, *noisy)]
    assert scores[0] == pytest.approx(1.0)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5


def test_ssim_of_two_flat_pictures_is_the_luminance_term():
    first, second = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(first, second) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-4)


def test_error_is_measured_where_it_is_asked_for():
    picture = np.where(LEFT[..., None], shifted(6), PORTRAIT)
    assert mean_error(picture, PORTRAIT, LEFT) == 6.0
    assert mean_error(picture, PORTRAIT, ~LEFT) == 0.0
    assert mean_error(PORTRAIT * 0, PORTRAIT * 0 + 255, LEFT) == 255.0
    assert math.isnan(mean_error(picture, PORTRAIT, NOWHERE))


def test_a_pixel_is_exact_when_all_of_its_samples_are():
    picture = PORTRAIT.copy()
    picture[:, :24, 1] ^= 1
    assert exact_share(picture, PORTRAIT, LEFT) == 0.5
    assert exact_share(picture, PORTRAIT, ~LEFT) == 1.0
    assert math.isnan(exact_share(picture, PORTRAIT, NOWHERE))


def test_detection_scores_of_a_known_map():
    found, mask = np.array([[1, 1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1, 0]], bool)
    everywhere = np.ones_like(mask)
    assert detection_scores(found, mask, everywhere) == {"recall": 2 / 3, "precision": 2 / 3, "iou": 0.5}
    but_the_alarm = np.array([[0, 1, 1, 1, 1]], bool)
    assert detection_scores(found, mask, but_the_alarm) == {"recall": 2 / 3, "precision": 1.0, "iou": 2 / 3}


def test_scores_without_anything_to_measure_are_not_numbers():
    nothing = np.zeros((1, 3), bool)
    assert all(math.isnan(score) for score in detection_scores(nothing, nothing, ~nothing).values())
    alarm = detection_scores(~nothing, nothing, ~nothing)
    assert math.isnan(alarm["recall"])
    assert (alarm["precision"], alarm["iou"]) == (0.0, 0.0)


# --- LPIPS ------------------------------------------------------------------------------------------------------------

CHANNELS = (3, 64, 192, 384, 256, 256)
KERNELS = (11, 5, 3, 3, 3)


@pytest.fixture(scope="module")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the right names and shapes, with random values: the real ones are not part of the repository."""
    folder, rng = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    features, linear = {}, {}
    for index, (layer, kernel) in enumerate(zip((0, 3, 6, 8, 10), KERNELS, strict=True)):
        fan_in = CHANNELS[index] * kernel**2
        shape = (CHANNELS[index + 1], CHANNELS[index], kernel, kernel)
        features[f"features.{layer}.weight"] = (torch.randn(shape, generator=rng) * fan_in**-0.5).half()
        features[f"features.{layer}.bias"] = torch.zeros(shape[0]).half()
        linear[f"lin{index}.weight"] = torch.rand(1, shape[0], 1, 1, generator=rng)
    save_file(features, folder / "alexnet_features_fp16.safetensors")
    save_file(linear, folder / "lpips_alex_lin.safetensors")
    return folder


def test_lpips_of_equals_is_0_and_grows_with_the_difference(lpips_weights):
    lpips = LPIPS(lpips_weights)
    assert lpips(PORTRAIT, PORTRAIT) == 0.0
    a_little, a_lot = (np.where(LEFT[..., None], shifted(levels), PORTRAIT) for levels in (4, 60))
    assert 0.0 < lpips(a_little, PORTRAIT) < lpips(a_lot, PORTRAIT)
    assert lpips(a_lot, PORTRAIT) == pytest.approx(lpips(PORTRAIT, a_lot), rel=1e-4)


@pytest.mark.parametrize("missing", ["alexnet_features_fp16.safetensors", "lpips_alex_lin.safetensors"])
def test_missing_lpips_weights_are_named(lpips_weights, tmp_path, missing):
    for path in lpips_weights.iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(DataError, match=f"{tmp_path} holds no {missing}; .* --lpips-weights$"):
        LPIPS(tmp_path)
