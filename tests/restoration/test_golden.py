import numpy as np
import pytest
import torch

from restoration.device import DeviceGenerator
from restoration.errors import ReleaseInvalid
from restoration.generator import Generator
from restoration.golden import (
    DAMAGE_MAP,
    DENOISED,
    RESTORED,
    VERIFIED_MAP,
    Golden,
    check_golden,
    make_golden,
    read_golden,
)
from restoration.release import load_generator, read_release
from restoration.restorer import Restorer

from .small_generator import encode, make_generator
from .test_release import replace_file


def on_cpu(generator: Generator) -> DeviceGenerator:
    return DeviceGenerator(generator, torch.device("cpu"), "float32")


def without(name: str, golden: Golden) -> Golden:
    return Golden(golden.damaged, {each: made for each, made in golden.made.items() if each != name})


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_release_passes_its_self_test_in_either_precision(release, precision):
    restorer = Restorer.load(release, device="cpu", precision=precision)
    assert restorer.precision == precision
    assert restorer.device.type == "cpu"


def test_the_golden_files_are_what_the_release_makes(release):
    golden = read_golden(release)
    made = make_golden(golden.damaged, on_cpu(load_generator(release)), golden.written)
    assert made.made.keys() == golden.made.keys() == {DAMAGE_MAP, RESTORED}
    for name in made.made:
        assert np.array_equal(made.made[name], golden.made[name])


def test_what_the_generator_sees_as_damage_is_filled_whatever_the_thresholds(publish):
    golden = read_golden(publish(make_generator(damage_logit=20.0)))
    assert golden.written.mean() > 0.9


def test_a_generator_that_fills_otherwise_fails_the_self_test(publish):
    release = publish(make_generator(damage_logit=20.0))
    other = make_generator(damage_logit=20.0)
    with torch.no_grad():
        other.filler.head.bias.add_(0.3)
    with pytest.raises(ReleaseInvalid, match=r"release 0001: its self-test differs.*restored, mean"):
        check_golden(release, read_golden(release), on_cpu(other))


def test_a_release_that_finds_other_damage_fails_even_where_nothing_was_written(publish):
    release = publish(make_generator(damage_logit=-20.0))
    golden = read_golden(release)
    assert not golden.written.any()
    with pytest.raises(ReleaseInvalid, match=r"damage map, mean .*, allowed 2\.0"):
        check_golden(release, golden, on_cpu(make_generator(damage_logit=-0.5)))


CASCADE = {"detector_channels": (8, 12, 16), "detector_context": 2, "verifier_channels": (8, 12, 16)}


@pytest.mark.parametrize(("part", "named"), [("detector", "damage map"), ("verifier", "verified map")])
def test_a_verifier_is_tested_beside_its_detector(publish, part, named):
    release = publish(make_generator(**CASCADE))
    other = make_generator(**CASCADE)
    check_golden(release, read_golden(release), on_cpu(make_generator(**CASCADE)))
    with torch.no_grad():
        getattr(other, part).head.bias.add_(1.0)
    with pytest.raises(
        ReleaseInvalid, match=rf"differs from the golden files \({named}, mean \d+\.\d+, allowed 2\.0\)"
    ):
        check_golden(release, read_golden(release), on_cpu(other))
    with pytest.raises(ReleaseInvalid, match=r"it makes golden/verified_map\.png, but has none"):
        check_golden(release, without(VERIFIED_MAP, read_golden(release)), on_cpu(other))


def test_a_denoiser_is_tested_too(publish):
    release = publish(make_generator(denoiser_channels=(8, 12, 16)))
    other = make_generator(denoiser_channels=(8, 12, 16))
    with torch.no_grad():
        other.denoiser.head.bias.add_(0.02)
    with pytest.raises(ReleaseInvalid, match=r"denoised, mean 8\.\d+, allowed 1\.0"):
        check_golden(release, read_golden(release), on_cpu(other))
    with pytest.raises(ReleaseInvalid, match=r"it makes golden/denoised\.png, but has none"):
        check_golden(release, without(DENOISED, read_golden(release)), on_cpu(other))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("golden/damaged.png", b"no picture", "cannot be decoded"),
        ("golden/restored.png", encode(np.zeros((9, 9, 3), np.uint8)), "is of another size"),
        ("golden/damage_map.png", encode(np.zeros((9, 9), np.uint8)), "is of another size"),
        ("golden/damage_map.png", encode(np.zeros((240, 250), np.uint16)), "has 16 bits a channel, expected 8"),
    ],
    ids=["damaged", "restored", "damage_map", "16 bits"],
)
def test_golden_files_that_are_none_are_refused(release, store, name, content, message):
    replace_file(release, name, content)
    with pytest.raises(ReleaseInvalid, match=message):
        Restorer.load(read_release(store, "0001"), device="cpu")
