"""How denoising is measured: each kind of noise, as strong as it says, and what was done against it."""

import numpy as np
import pytest
import torch
from skimage import data

from restoration.architectures import build_generator
from training.denoising import KINDS, make_noisy_cases, measure_denoising
from training.evaluation import Evaluation, place
from training.metrics import psnr

PHOTOS = [data.astronaut()[:80, 100:196], data.chelsea()[:80, :96]]


def cases(num: int = 2):
    return list(make_noisy_cases(PHOTOS, ["astronaut", "chelsea"], num_per_kind=num, seed=1))


@pytest.fixture(scope="module")
def measured():
    """Of a generator that makes everything lighter by 25 levels instead of taking out noise."""
    torch.manual_seed(0)
    config = {
        "detector_channels": [8, 8],
        "filler_channels": [8, 8],
        "denoiser_channels": [8, 8],
        "detector_shift": 90.0,
    }
    generator = build_generator("detect-fill", config).eval()
    generator.denoiser.head.bias.data.fill_(0.1)
    return measure_denoising(cases(), place(generator, torch.device("cpu")), None)


def test_the_same_photos_are_shown_with_every_kind_of_noise_and_always_the_same():
    one, again = cases(4), cases(4)
    assert [case.family for case in one] == [kind for kind in KINDS for _ in range(4)]
    assert [case.name for case in one[:4]] == [case.name for case in one[4:8]]
    assert sorted({case.name for case in one}) == ["astronaut", "chelsea"]
    assert all(np.array_equal(case.damaged, other.damaged) for case, other in zip(one, again, strict=True))


def test_noise_is_as_strong_as_it_says():
    assert all(15.0 < psnr(case.damaged, case.clean) < 40.0 for case in cases(8))
    grain = next(case for case in cases() if case.family == "grain")
    difference = grain.damaged.astype(int) - grain.clean
    inside = (grain.damaged > 0).all(axis=2) & (grain.damaged < 255).all(axis=2)
    assert (np.ptp(difference[inside], axis=1) <= 1).all()  # in all channels alike


def test_doing_nothing_and_each_share_are_measured_by_kind_and_on_average(measured):
    assert measured.keys() == {*KINDS, "mean"}
    for of_kind in measured.values():
        assert of_kind.keys() == {"nothing", "denoise=0.5", "denoise=1"}
        assert of_kind["denoise=1"]["psnr"] < of_kind["denoise=0.5"]["psnr"]
    assert measured["mean"]["nothing"]["psnr"] == pytest.approx(
        sum(measured[kind]["nothing"]["psnr"] for kind in KINDS) / 3
    )


def test_the_tables_are_in_the_evaluation(measured):
    text = Evaluation({"nothing": {}}, {}, denoising=measured).to_markdown()
    assert "## Noise: PSNR, dB" in text
    assert "| what was added | nothing | denoise=0.5 | denoise=1 |" in text
    assert f"| mean | {measured['mean']['nothing']['psnr']:.2f} |" in text
