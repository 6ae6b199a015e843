import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from restoration.errors import ReleaseInvalid
from restoration.publishing import copy_release
from restoration.release import list_releases, read_release
from restoration.seeding import seed_store


def test_an_empty_store_gets_every_shipped_release(release, store, tmp_path):
    assert seed_store(tmp_path / "volume", store) == ["0001"]
    copied = read_release(tmp_path / "volume", "0001")
    assert copied.manifest == release.manifest
    assert sorted(entry.name for entry in (tmp_path / "volume").glob("[!.]*")) == ["0001", "last_number"]


def test_what_was_trained_here_stays(release, publish, store, finished_store):
    publish()
    shutil.rmtree(store / "0001")  # and what was removed here stays away
    assert seed_store(store, finished_store) == []
    assert list_releases(store) == ["0002"]


def test_a_newer_image_brings_its_newer_release(release, publish, store, finished_store, tmp_path):
    volume = tmp_path / "volume"
    seed_store(volume, finished_store)
    publish()
    assert seed_store(volume, store) == ["0002"]
    assert list_releases(volume) == ["0001", "0002"]


def test_a_shipped_release_that_is_not_whole_is_not_copied(release, store, tmp_path):
    (store / "0001" / "README.md").write_text("another card")
    with pytest.raises(ReleaseInvalid):
        seed_store(tmp_path / "volume", store)
    assert list_releases(tmp_path / "volume") == []


def test_a_file_that_changes_while_it_is_copied_leaves_nothing_behind(release, store, tmp_path):
    (store / "0001" / "README.md").write_text("another card")
    with pytest.raises(ReleaseInvalid):
        copy_release(release, tmp_path / "volume")
    assert list((tmp_path / "volume").iterdir()) == []


def test_the_command_says_what_it_did(release, store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "restoration.seeding", str(tmp_path / "volume"), "--shipped", str(store)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "copied 0001" in first
    assert "nothing to copy" in second


def test_the_command_names_a_store_that_cannot_be_written(release, store: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("a file, not a folder")
    command = [sys.executable, "-m", "restoration.seeding", str(tmp_path / "volume"), "--shipped", str(store)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert str(tmp_path / "volume") in answer.stderr
