import numpy as np
import pytest

from restoration.errors import ReleaseInvalid
from restoration.golden import check_golden, read_golden
from restoration.release import read_release
from restoration.restorer import Restorer

from .small_generator import encode, make_generator
from .test_release import replace_file


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_release_passes_its_self_test_in_either_precision(release, precision):
    restorer = Restorer.load(release, device="cpu", precision=precision)
    assert restorer.precision == precision
    assert restorer.device.type == "cpu"


def test_the_golden_files_are_what_the_release_makes(release):
    golden = read_golden(release)
    restoration = Restorer.load(release, device="cpu", precision="float32").restore(golden.damaged)
    assert np.array_equal(restoration.samples, golden.restored)
    assert np.array_equal(restoration.damage_map, golden.damage_map)


def test_a_release_that_does_nothing_fails_the_self_test_of_one_that_restores(publish):
    release = publish(make_generator(damage_logit=20.0))
    golden = read_golden(release)
    with pytest.raises(ReleaseInvalid, match="release 0001: its self-test differs"):
        check_golden(release, golden, golden.damaged.samples, golden.damage_map)


def test_a_release_that_finds_other_damage_fails_even_where_nothing_was_written(publish):
    release = publish(make_generator(damage_logit=-20.0))
    golden = read_golden(release)
    assert np.array_equal(golden.restored, golden.damaged.samples)
    with pytest.raises(ReleaseInvalid, match=r"damage map, mean 50\.000, allowed 2\.0"):
        check_golden(release, golden, golden.restored, golden.damage_map + 50)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("golden/damaged.png", b"no picture", "cannot be decoded"),
        ("golden/restored.png", encode(np.zeros((9, 9, 3), np.uint8)), "not of one size"),
        ("golden/damage_map.png", encode(np.zeros((9, 9), np.uint8)), "not of one size"),
    ],
    ids=["damaged", "restored", "damage_map"],
)
def test_golden_files_that_are_none_are_refused(release, store, name, content, message):
    replace_file(release, name, content)
    with pytest.raises(ReleaseInvalid, match=message):
        Restorer.load(read_release(store, "0001"), device="cpu")
