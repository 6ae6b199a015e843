"""Noise for training: as strong and as coloured as it says, and JPEG as libjpeg has it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restoration.tensors import to_model_range, to_samples
from training.jpeg import compress_jpeg, compress_jpeg_subsampled
from training.noise import NoiseConfig, add_film_grain, add_sensor_noise, compress, make_noisy_pairs

CLEAN = NoiseConfig(grain=0.0, noise=0.0, jpeg=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(num: int, side_px: int = 96) -> torch.Tensor:
    return to_model_range(data.astronaut()[:side_px, 100 : 100 + side_px])[None].repeat(num, 1, 1, 1)


def test_the_same_seed_gives_the_same_pairs_and_none_is_damaged():
    one, again, other = (make_noisy_pairs(photos(16), NoiseConfig(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.damaged, again.damaged)
    assert not torch.equal(one.damaged, other.damaged)
    assert not one.mask.any()
    for picture in (one.damaged, one.clean):
        assert picture.min() >= 0.0
        assert picture.max() <= 1.0


def test_some_have_no_noise_at_all_and_most_have_some():
    pairs = make_noisy_pairs(photos(64, 32), NoiseConfig(), seeded())
    untouched = [torch.equal(noisy, clean) for noisy, clean in zip(pairs.damaged, pairs.clean, strict=True)]
    assert 0.05 < np.mean(untouched) < 0.35
    without = make_noisy_pairs(photos(8), CLEAN, seeded())
    assert torch.equal(without.damaged, without.clean)


def test_what_is_grey_has_grey_noise():
    grey = photos(8).mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
    for add in (add_film_grain, add_sensor_noise):
        noise = add(grey, seeded()) - grey
        assert torch.allclose(noise, noise[:, :1].expand_as(noise), atol=1e-6)
        assert noise.std() > 0.01
    colours = add_sensor_noise(photos(16), seeded()) - photos(16)
    assert (colours - colours[:, :1]).abs().amax() > 0.05


def by_pillow(samples: np.ndarray, quality: int) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(samples).save(encoded, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(encoded).convert("RGB"))


@pytest.mark.parametrize("quality", [15, 50, 90])
def test_subsampled_jpeg_is_pillow_s_to_less_than_half_of_its_loss(quality):
    samples = data.astronaut()[:96, 150:278]
    pictures = to_model_range(samples)[None]
    ours, theirs = (
        compress_jpeg_subsampled(pictures, torch.full((1, 1, 1, 1), float(quality)))[0],
        by_pillow(samples, quality),
    )
    apart = np.abs(to_samples(ours).astype(int) - theirs).mean()
    assert apart < 0.35 * np.abs(theirs.astype(int) - samples).mean() + 0.3


def test_subsampling_loses_colour_and_nothing_of_a_grey_photo():
    quality = torch.full((1, 1, 1, 1), 95.0)
    colours = photos(1)
    grey = colours.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
    assert torch.allclose(compress_jpeg_subsampled(grey, quality), compress_jpeg(grey, quality), atol=1e-5)
    lost, kept = ((each(colours, quality) - colours).abs().mean() for each in (compress_jpeg_subsampled, compress_jpeg))
    assert lost > kept


def test_the_grid_of_jpeg_lies_anywhere_and_any_size_is_taken():
    picture = photos(4)[:, :, :45, :53]
    first, second = compress(picture, seeded(0)), compress(picture, seeded(1))
    assert first.shape == second.shape == picture.shape
    assert not torch.equal(first, second)
