import os
from pathlib import Path

import pytest

from training.splits import list_images, select_split, split_of

NAMES = [f"album/{index:04}.jpg" for index in range(2000)]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_split_of_a_name_never_changes():
    """Figures of one version are compared with another's: these names have the same split for ever."""
    splits = [split_of(name, 0.5) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    assert splits == ["evaluation", "evaluation", "train", "evaluation"]


def test_a_name_that_is_not_utf8_has_a_split_too():
    assert split_of(os.fsdecode(b"caf\xe9.jpg"), 0.5) == "train"


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_about_the_share_is_held_out(share):
    splits = [split_of(name, share) for name in NAMES]
    for split in ("validation", "evaluation"):
        assert splits.count(split) / len(NAMES) == pytest.approx(share / 2, abs=0.03)


def test_nothing_or_everything_can_be_held_out():
    assert {split_of(name, 0.0) for name in NAMES} == {"train"}
    assert {split_of(name, 1.0) for name in NAMES} == {"validation", "evaluation"}


def test_holding_out_more_keeps_what_was_held_out():
    less, more = ({name for name in NAMES if split_of(name, share) == "evaluation"} for share in (0.05, 0.1))
    assert less < more


def test_the_splits_are_disjoint_and_together_all(tmp_path):
    paths = list_images(touch(tmp_path, *NAMES[:100]))
    splits = [select_split(paths, tmp_path, split, 0.3) for split in ("train", "validation", "evaluation")]
    assert all(splits)
    assert sorted(path for split in splits for path in split) == paths


def test_files_that_are_added_do_not_move_the_others(tmp_path):
    touch(tmp_path, *NAMES[:60])
    before = select_split(list_images(tmp_path), tmp_path, "evaluation", 0.3)
    touch(tmp_path, "0.jpg", "album/0000a.jpg", "zoo/1.jpg")
    after = select_split(list_images(tmp_path), tmp_path, "evaluation", 0.3)
    assert set(before) <= set(after)
    assert not (set(after) - set(before)) & {tmp_path / name for name in NAMES}


def test_a_folder_that_moves_keeps_its_split(tmp_path):
    splits = []
    for place in ("here", "there"):
        folder = touch(tmp_path / place, *NAMES[:60])
        chosen = select_split(list_images(folder), folder, "train", 0.3)
        splits.append([path.relative_to(folder) for path in chosen])
    assert splits[0] == splits[1]


def test_images_are_found_in_subfolders_by_suffix_hidden_ones_left_out(tmp_path):
    touch(tmp_path, "b.JPG", "a/1.png", "a/2.tiff", "c.webp", "notes.txt", "d.gif", ".e.jpg", ".thumbnails/f.jpg")
    (tmp_path / "folder.jpg").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a/1.png", "a/2.tiff", "b.JPG", "c.webp"]


def test_a_hidden_folder_can_be_asked_for_by_name(tmp_path):
    assert len(list_images(touch(tmp_path / ".photos", "a.jpg"))) == 1


def test_of_a_small_folder_one_picture_is_held_out_all_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"photo_{index}.jpg" for index in range(6)]
    for share in (1e-9, 0.05):
        train, held_out = (select_split(paths, tmp_path, split, share) for split in ("train", "evaluation"))
        assert held_out
        assert sorted(train + held_out) == paths
    assert select_split(paths[:1], tmp_path, "train", 1e-9) == paths[:1]
