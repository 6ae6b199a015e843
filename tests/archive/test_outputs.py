"""Which files in the destination and among the damage maps are ours: written, replaced and removed, and no others."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import bagit
import pytest

from archive.journal import Journal
from archive.trees import _beside

from ..service.serving import encode, grey_photo, scratched_photo
from .conftest import Archive, files_of, start_archive
from .scripted_server import ScriptedServer
from .scripted_server import restored as restored_answer

FOREIGN = b"the only copy"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """One photo with damage, one without."""
    root = tmp_path / "scans"
    (root / "box").mkdir(parents=True)
    (root / "box" / "dam.png").write_bytes(encode(scratched_photo()))
    (root / "clean.tif").write_bytes(encode(grey_photo(), "TIFF"))
    return root


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    return tmp_path / "maps"


def test_a_map_that_somebody_made_after_a_run_without_maps_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address)
    archive(*run)
    (maps / "box").mkdir(parents=True)
    (maps / "box" / "dam.png.png").write_bytes(FOREIGN)
    code, _, told = archive(*run, "--damage-maps", maps)
    assert code == 1
    assert "box/dam.png: name-taken: " in told
    assert files_of(maps) == {"box/dam.png.png": FOREIGN}


def test_an_output_that_somebody_put_where_none_was_written_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address)
    archive(*run, "--only-damaged")
    (restored / "clean.tif").write_bytes(FOREIGN)
    code, _, told = archive(*run)
    assert code == 1
    assert "clean.tif: name-taken: " in told
    assert (restored / "clean.tif").read_bytes() == FOREIGN


def test_a_map_of_the_same_name_in_another_folder_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, maps: Path, tmp_path: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address, "--damage-maps")
    archive(*run, maps)
    (tmp_path / "others" / "box").mkdir(parents=True)
    (tmp_path / "others" / "box" / "dam.png.png").write_bytes(FOREIGN)
    code, _, told = archive(*run, tmp_path / "others")
    assert code == 1
    assert "box/dam.png: name-taken: " in told
    assert files_of(tmp_path / "others") == {"box/dam.png.png": FOREIGN}


def test_a_file_that_somebody_puts_there_while_the_photo_is_restored_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    def put_there(body: bytes):
        (restored / "clean.tif").write_bytes(FOREIGN)
        return restored_answer(body)

    scripted.answer = put_there
    run = ("restore", scans, restored, "--server", scripted.address, "--include", "clean.tif")
    for _ in range(2):
        code, _, told = archive(*run)
        assert code == 1
        assert "clean.tif: name-taken: " in told
        assert (restored / "clean.tif").read_bytes() == FOREIGN


def test_what_belongs_there_no_more_is_removed(
    archive: Archive, scans: Path, tmp_path: Path, maps: Path, address: str
) -> None:
    journal = ("--journal", tmp_path / "journal.sqlite3")
    outputs = tmp_path / "bag" / "data"
    run = ("restore", scans, outputs, "--server", address, "--only-damaged", "--damage-maps", maps, *journal)
    (scans / "worse.png").write_bytes(encode(scratched_photo()))
    archive(*run)
    assert files_of(outputs).keys() == {"box/dam.png", "worse.png"}
    (scans / "box" / "dam.png").write_bytes(encode(grey_photo()))
    assert archive(*run)[0] == 0
    assert files_of(outputs).keys() == {"worse.png"}
    assert files_of(maps).keys() == {"worse.png.png"}
    archive("report", outputs, tmp_path / "bag", *journal)
    assert bagit.Bag(str(tmp_path / "bag")).validate()
    assert archive(*run, "--redo", "--sensitivity", 0)[0] == 0
    assert files_of(outputs) == files_of(maps) == {}


REDO = ("--sensitivity", 0.7, "--redo")


@pytest.mark.parametrize(("is_longer", "again"), [(True, ()), (True, REDO), (False, REDO)])
def test_an_output_that_somebody_edited_is_not_replaced_before_it_is_moved_away(
    archive: Archive, scans: Path, restored: Path, address: str, is_longer: bool, again: tuple[object, ...]
) -> None:
    run = ("restore", scans, restored, "--server", address)
    archive(*run)
    output = restored / "box" / "dam.png"
    edited = output.read_bytes()[: None if is_longer else -1] + b"!"
    output.write_bytes(edited)
    code, _, told = archive(*run, *again)
    assert code == 1
    assert "box/dam.png: changed-since: " in told
    assert "move it away, or delete it if it is broken, and run again" in told
    assert output.read_bytes() == edited
    output.rename(restored / "edited.png")
    code, _, told = archive(*run, *again)
    assert (code, "1 restored" in told) == (0, True)
    assert archive("verify", restored)[0] == 0
    assert (restored / "edited.png").read_bytes() == edited


def test_a_map_that_somebody_edited_is_not_replaced_nor_the_output_beside_it(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address, "--damage-maps", maps)
    archive(*run)
    before = files_of(restored)
    (maps / "box" / "dam.png.png").write_bytes(FOREIGN)
    (scans / "box" / "dam.png").write_bytes(encode(scratched_photo(64, 64)))
    code, _, told = archive(*run)
    assert code == 1
    assert "box/dam.png: changed-since: " in told
    assert (files_of(restored), files_of(maps)) == (before, {"box/dam.png.png": FOREIGN})


def test_an_output_stays_where_it_is_when_its_map_cannot_be_removed(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address, "--only-damaged", "--damage-maps", maps)
    archive(*run)
    before = files_of(restored)
    (maps / "box" / "dam.png.png").write_bytes(FOREIGN)
    (scans / "box" / "dam.png").write_bytes(encode(grey_photo()))
    assert "box/dam.png: changed-since: " in archive(*run)[2]
    assert files_of(restored) == before
    (restored / "box" / "dam.png").write_bytes(FOREIGN)
    (scans / "box" / "dam.png").write_bytes(encode(scratched_photo()))
    assert "box/dam.png: changed-since: " in archive(*run)[2]
    assert files_of(restored) == {"box/dam.png": FOREIGN}


def test_a_run_killed_before_it_replaced_an_output_knows_the_old_one_for_its_own(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    run = ("restore", scans, restored, "--server", scripted.address)
    archive(*run)
    before = files_of(restored)
    scripted.answer = lambda _: restored_answer(encode(grey_photo(16, 16)))
    pipe = Path(_beside(str(restored / "box" / "dam.png")))
    os.mkfifo(pipe)  # whoever writes into it waits for a reader
    redo = start_archive(*run, "--sensitivity", 0.7, "--redo")
    with Journal.open_to_read(restored / ".restoration-journal.sqlite3") as journal:
        while journal.count() != {"begun": 1, "done": 1, "failed": 0} and redo.poll() is None:
            time.sleep(0.01)
    redo.kill()
    redo.communicate()
    pipe.unlink()
    assert (restored / "box" / "dam.png").read_bytes() == before["box/dam.png"]
    code, _, told = archive(*run, "--sensitivity", 0.7)
    assert code == 0, told
    assert archive("verify", restored)[0] == 0
    assert (restored / "box" / "dam.png").read_bytes() != before["box/dam.png"]


@pytest.mark.parametrize("changed", ["output", "map"])
def test_what_belongs_there_no_more_but_was_changed_since_is_left_and_told_of(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str, changed: str
) -> None:
    run = ("restore", scans, restored, "--server", address, "--only-damaged", "--damage-maps", maps)
    archive(*run)
    path = restored / "box" / "dam.png" if changed == "output" else maps / "box" / "dam.png.png"
    path.write_bytes(FOREIGN)
    (scans / "box" / "dam.png").write_bytes(encode(grey_photo()))
    for _ in range(2):
        code, _, told = archive(*run)
        assert code == 1
        assert "box/dam.png: changed-since: " in told
        assert path.read_bytes() == FOREIGN
    path.unlink()
    assert archive(*run)[0] == 0
    assert files_of(restored) == files_of(maps) == {}


def test_a_run_without_maps_keeps_those_that_are_right_and_removes_those_that_are_not(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address)
    archive(*run, "--damage-maps", maps)
    before = files_of(maps)
    (restored / "box" / "dam.png").unlink()
    assert "1 restored" in archive(*run)[2]
    assert files_of(maps) == before
    assert "0 restored, 0 of them with damage; 2 done before" in archive(*run, "--damage-maps", maps)[2]
    (scans / "box" / "dam.png").write_bytes(encode(scratched_photo(64, 64)))
    assert "1 restored" in archive(*run)[2]
    assert files_of(maps) == {}
    code, _, told = archive(*run, "--damage-maps", maps)
    assert (code, "1 restored" in told) == (0, True)
    assert files_of(maps).keys() == before.keys()


@pytest.mark.parametrize("failed", ["output", "map"])
def test_what_was_written_before_a_write_that_failed_is_known_to_be_ours(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str, failed: str
) -> None:
    blocked = _beside(str(restored / "box" / "dam.png" if failed == "output" else maps / "box" / "dam.png.png"))
    Path(blocked).mkdir(parents=True)
    run = ("restore", scans, restored, "--server", address, "--damage-maps", maps)
    code, _, told = archive(*run)
    assert code == 1
    assert "box/dam.png: unwritable: " in told
    Path(blocked).rmdir()
    code, _, told = archive(*run)
    assert code == 0, told
    assert files_of(maps).keys() == {"box/dam.png.png"}


def test_a_map_that_is_right_no_more_is_removed_also_after_a_write_that_failed(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str
) -> None:
    run = ("restore", scans, restored, "--server", address)
    archive(*run, "--damage-maps", maps)
    (scans / "box" / "dam.png").write_bytes(encode(scratched_photo(64, 64)))
    blocked = Path(_beside(str(restored / "box" / "dam.png")))
    blocked.mkdir()
    assert "box/dam.png: unwritable: " in archive(*run)[2]
    blocked.rmdir()
    assert "1 restored" in archive(*run)[2]
    assert files_of(maps) == {}


def test_a_file_that_somebody_put_where_a_write_failed_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, address: str
) -> None:
    blocked = Path(_beside(str(restored / "clean.tif")))
    blocked.mkdir(parents=True)
    run = ("restore", scans, restored, "--server", address)
    assert "clean.tif: unwritable: " in archive(*run)[2]
    blocked.rmdir()
    (restored / "clean.tif").write_bytes(FOREIGN)
    assert "clean.tif: name-taken: " in archive(*run)[2]
    assert (restored / "clean.tif").read_bytes() == FOREIGN


OF_VERSION_1 = """
ALTER TABLE photos DROP COLUMN suspected_from;
ALTER TABLE photos ADD COLUMN is_ours INTEGER NOT NULL DEFAULT 0;
UPDATE photos SET status = 'begun', is_ours = 1, output_sha256 = NULL, output_bytes = NULL, damage_map_sha256 = NULL;
PRAGMA user_version = 1;
"""


@pytest.mark.parametrize("crashed", ["UPDATE photos SET status = 'begun', output_bytes = NULL", OF_VERSION_1])
def test_what_a_run_wrote_that_crashed_before_it_could_say_so_is_ours(
    archive: Archive, scans: Path, restored: Path, maps: Path, address: str, crashed: str
) -> None:
    run = ("restore", scans, restored, "--server", address, "--damage-maps", maps)
    archive(*run)
    with closing(sqlite3.connect(restored / ".restoration-journal.sqlite3")) as journal, journal:
        journal.executescript(crashed)
    code, _, told = archive(*run)
    assert code == 0, told
    assert "2 restored" in told
    assert archive("verify", restored)[0] == 0
