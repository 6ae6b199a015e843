"""The keys in force follow their file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from service.errors import KeysInvalid, QuotaExceeded
from service.keyring import Caller, KeyRing

from .key_files import add


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def find(ring: KeyRing, key: str) -> Caller:
    caller = ring.find(key)
    assert caller is not None
    return caller


def test_a_key_that_is_added_opens_and_one_that_is_removed_does_not(keys_file: Path) -> None:
    old = add(keys_file, "old")
    ring = KeyRing(keys_file)
    before = keys_file.read_text()
    new = add(keys_file, "new")
    assert ring.find(new) is None
    ring.look()
    assert (find(ring, old).name, find(ring, new).name) == ("old", "new")
    keys_file.write_text(keys_file.read_text().removeprefix(before))
    ring.look()
    assert ring.find(old) is None
    assert find(ring, new).name == "new"


def test_a_file_that_was_replaced_by_renaming_is_noticed(keys_file: Path, tmp_path: Path) -> None:
    """As Kubernetes does with a mounted secret: a link to another folder."""
    add(keys_file, "old")
    linked = tmp_path / "linked.toml"
    linked.symlink_to(keys_file)
    ring = KeyRing(linked)
    new = add(tmp_path / "next.toml", "new")
    (tmp_path / "link").symlink_to(tmp_path / "next.toml")
    (tmp_path / "link").replace(linked)
    ring.look()
    assert find(ring, new).name == "new"


def damage(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def misspell(path: Path) -> None:
    path.write_text(path.read_text().replace('["restore"]', '["restroe"]'))


def make_a_folder_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_pipe_of(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_a_named_pipe_in_place_of_the_file_leaves_the_keys_as_they_were(keys_file: Path) -> None:
    """Opening it would wait for a writer, for ever."""
    key = add(keys_file)
    ring = KeyRing(keys_file)
    make_a_pipe_of(keys_file)
    with structlog.testing.capture_logs() as lines:
        ring.look()
    assert [line["reason"] for line in lines] == [f"{keys_file} is no regular file"]
    assert find(ring, key).name == "archive"


@pytest.mark.parametrize("spoil", [damage, misspell, Path.unlink, make_a_folder_of])
def test_a_file_that_is_broken_or_gone_leaves_the_keys_as_they_were_and_is_logged_once(
    keys_file: Path, spoil: Callable[[Path], None]
) -> None:
    key = add(keys_file)
    ring = KeyRing(keys_file)
    spoil(keys_file)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            ring.look()
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("keys stay as they were", "error")
    assert str(keys_file) in line["reason"]
    assert find(ring, key).name == "archive"


def test_a_file_that_was_mended_is_taken_and_trouble_that_comes_back_is_logged_again(keys_file: Path) -> None:
    add(keys_file, "first")
    ring = KeyRing(keys_file)
    intact = keys_file.read_text()
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            damage(keys_file)
            ring.look()
            keys_file.write_text(intact)
            ring.look()
    assert [line["event"] for line in lines] == ["keys stay as they were"] * 2
    second = add(keys_file, "second")
    ring.look()
    assert find(ring, second).name == "second"


def test_taking_the_last_key_out_revokes_it_and_opens_nothing(keys_file: Path) -> None:
    key = add(keys_file)
    ring = KeyRing(keys_file)
    keys_file.write_text("")
    ring.look()
    assert ring.find(key) is None
    assert ring.find("") is None


@pytest.mark.parametrize("content", [None, "", "# none yet"])
def test_nothing_starts_with_a_file_that_lets_nobody_in(keys_file: Path, content: str | None) -> None:
    if content is not None:
        keys_file.write_text(content)
    with pytest.raises(KeysInvalid, match=r"cannot be read: No such file|holds no key"):
        KeyRing(keys_file)


def test_reading_the_file_again_gives_nobody_a_new_quota(keys_file: Path) -> None:
    key = add(keys_file, requests_per_minute=1)
    ring = KeyRing(keys_file)
    find(ring, key).quota.charge_request()
    add(keys_file, "another")
    ring.look()
    with pytest.raises(QuotaExceeded):
        find(ring, key).quota.charge_request()


def test_a_changed_quota_is_in_force_at_once(keys_file: Path) -> None:
    key = add(keys_file, requests_per_minute=1)
    ring = KeyRing(keys_file)
    keys_file.write_text(keys_file.read_text().replace("requests_per_minute = 1.0", "requests_per_minute = 2.0"))
    ring.look()
    find(ring, key).quota.charge_request()
    find(ring, key).quota.charge_request()
