"""The filters beside the networks."""

import cv2
import torch

from restoration.unets import fill_smoothly, split_bands

from .test_generator import hole, portrait


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


def test_the_bands_of_detail_and_what_is_left_are_the_picture_again():
    planes = torch.rand(2, 3, 40, 56)
    bands, rest = split_bands(planes, 3)
    assert len(bands) == 3
    assert torch.allclose(sum(bands, rest), planes, atol=1e-6)
    deviations = [float(each.std()) for each in (*bands, rest)]
    assert deviations == sorted(deviations, reverse=True)  # of white noise most is in the finest band
