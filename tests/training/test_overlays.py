from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restoration.errors import DataError
from training.drawing import DRAW, FAMILIES, INNOCENT, draw_overlay
from training.overlays import FAMILY_OF_FOLDER, build_bank


@pytest.fixture
def numbered_overlays(tmp_path: Path) -> Path:
    """40 overlays of dust, each of a level of its own by which it is known."""
    (tmp_path / "dirt").mkdir()
    for level in range(100, 140):
        Image.fromarray(np.full((16, 16), level, np.uint8)).save(tmp_path / "dirt" / f"{level}.png")
    return tmp_path


def small_bank(split, folder=None, **changes):
    return build_bank(split, overlay_folder=folder, **({"side_px": 48, "num_per_family": 3} | changes)).overlays


def test_training_and_evaluation_share_no_overlay_file(numbered_overlays):
    levels = []
    for split in ("train", "evaluation"):
        dust = small_bank(split, numbered_overlays, families=("dust",), num_per_family=40)["dust"]
        levels.append(set(dust[40:, 0].unique().tolist()))  # after those that are drawn
    assert all(levels)
    assert sum(map(len, levels)) == 40
    assert set().union(*levels) == set(range(100, 140))


def test_training_and_evaluation_share_no_drawing():
    banks = [small_bank(split) for split in ("train", "evaluation")]
    for family in DRAW:
        for one, other in combinations(banks, 2):
            assert not any(torch.equal(drawn, another) for drawn in one[family] for another in other[family])


def test_equal_seeds_give_equal_banks_others_do_not(overlay_folder):
    first, second, other = (small_bank("train", overlay_folder, seed=seed) for seed in (4, 4, 5))
    assert first.keys() == second.keys() == other.keys() == {*FAMILIES, INNOCENT}
    assert all(first[family].equal(second[family]) for family in first)
    assert not any(first[family].equal(other[family]) for family in first)


def test_the_bank_is_the_same_whatever_the_number_of_workers(overlay_folder):
    alone, shared = (small_bank("train", overlay_folder, num_workers=num) for num in (1, 3))
    assert alone.keys() == shared.keys()
    assert all(alone[family].equal(shared[family]) for family in alone)


def test_a_larger_bank_begins_as_a_smaller_one():
    """A stream for each overlay: more of them change none of the others."""
    fewer, more = (small_bank("train", families=("creases",), num_per_family=num)["creases"] for num in (2, 4))
    assert more[:2].equal(fewer)


def test_a_family_alone_is_drawn_as_it_is_among_others():
    together, alone = small_bank("train"), small_bank("train", families=("stains",))
    assert alone.keys() == {"stains"}
    assert together["stains"].equal(alone["stains"])


@pytest.mark.parametrize("family", DRAW)
def test_every_drawn_overlay_hides_something_and_leaves_something(family):
    rng = np.random.default_rng(0)
    overlays = np.stack([draw_overlay(family, 96, rng) for _ in range(12)])
    assert overlays.shape == (12, 2, 96, 96)
    assert overlays.dtype == np.uint8
    hidden = (overlays[:, 0] > 64).mean(axis=(1, 2))
    assert (hidden > 0).sum() >= 9
    assert np.median(hidden) < 0.5


def test_overlay_files_feed_the_family_of_their_folder(tmp_path):
    for folder in ("hair", "unheard-of", "paper"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / folder / "1.png")
    bank = small_bank("train", tmp_path, held_out_share=0.0, families=("dust", "fibres", "scratches"))
    assert {family: len(planes) for family, planes in bank.items()} == {"dust": 4, "fibres": 4, "scratches": 3}
    assert FAMILY_OF_FOLDER["hair"] == "fibres"
    assert bank["fibres"].dtype == torch.uint8
    assert bank["fibres"].shape == (4, 2, 48, 48)
    assert (bank["fibres"][3, 0] == 200).all()


def test_without_files_the_bank_holds_every_family():
    assert small_bank("train").keys() == {*FAMILIES, INNOCENT}


def test_an_overlay_folder_that_is_missing_or_empty_is_not_passed_over(tmp_path):
    for folder in (tmp_path, tmp_path / "mistyped"):
        with pytest.raises(DataError, match=f"{folder} is not a folder that holds damage overlays"):
            small_bank("train", folder)


def test_an_overlay_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"torn.png cannot be read as an overlay"):
        small_bank("train", tmp_path, held_out_share=0.0)
