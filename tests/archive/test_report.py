"""`archive status`, `report` and `verify`: what is looked at when the run is over."""

import base64
import csv
import io
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import bagit
import numpy as np
import pytest
from PIL import Image

from archive.journal import Record
from archive.report import show_photo
from archive.trees import open_tree

from ..service.serving import encode, grey_photo, scratched_photo
from .conftest import Archive
from .scripted_server import ScriptedServer


@pytest.fixture
def bag(archive: Archive, scans: Path, tmp_path: Path, address: str) -> Path:
    """The folder of a report, beside which lies what was restored: it is `bag/data`."""
    (scans / "old <b>.png").write_bytes(encode(scratched_photo(64, 32)))
    journal = ("--journal", tmp_path / "journal.sqlite3")
    archive("restore", scans, tmp_path / "bag" / "data", "--server", address, *journal)
    code, told, _ = archive("report", tmp_path / "bag" / "data", tmp_path / "bag", *journal)
    assert code == 0
    assert "index.html" in told
    return tmp_path / "bag"


def test_the_manifest_makes_a_bag_that_validates(bag: Path) -> None:
    assert bagit.Bag(str(bag)).validate()
    (bag / "data" / "cover.jpg").write_bytes(b"something else")
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(bag)).validate()


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\u2028b", "a\x85b", "a\x0bb"])
def test_names_that_no_bag_can_hold_are_told_of_and_left_out(
    archive: Archive, scans: Path, tmp_path: Path, scripted: ScriptedServer, name: str
) -> None:
    (scans / f"{name}.png").write_bytes(encode(grey_photo()))
    journal = ("--journal", tmp_path / "journal.sqlite3")
    outputs = tmp_path / "bag" / "data"
    archive("restore", scans, outputs, "--server", scripted.address, *journal)
    code, _, told = archive("report", outputs, tmp_path / "bag", *journal)
    assert code == 0
    assert "not in the manifest, as a bag cannot hold names that are not UTF-8" in told
    (outputs / f"{name}.png").unlink()
    assert bagit.Bag(str(tmp_path / "bag")).validate()


def test_the_table_holds_every_photo(bag: Path) -> None:
    with (bag / "photos.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {
        "cover.jpg",
        "old <b>.png",
        "box 1/album/Schülerin.tif",
        "box 1/clean.png",
        "box 1/broken.png",
    }
    assert rows["box 1/broken.png"]["reason"] == "photo-undecodable"
    assert (rows["cover.jpg"]["height_px"], rows["cover.jpg"]["width_px"]) == ("96", "128")


def test_the_page_shows_the_most_damaged_first_and_needs_nothing_else(bag: Path) -> None:
    page = (bag / "index.html").read_text(encoding="utf-8")
    names = re.findall(r"<strong>(.*?)</strong>", page)
    assert names[0] == "old &lt;b&gt;.png"
    assert len(names) == 3
    assert not re.search(r'(?:src|href)="(?!data:image/jpeg|photos\.csv)', page)
    assert "photo-undecodable" in page


def test_a_photo_is_shown_before_after_and_where(bag: Path) -> None:
    page = (bag / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="cover.jpg', page)
    before, after, damage = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"), int) for picture in pictures
    )
    assert before.shape == after.shape == damage.shape == (96, 128)
    assert before[40, 65] > 230 > after[40, 65]
    assert damage[40, 65] > 200
    assert damage[40, 20] < 50


def test_a_16_bit_photo_is_shown_in_its_own_tones(tmp_path: Path) -> None:
    samples = np.asarray(grey_photo())[:, :, 0].astype(np.uint16) * 257
    (tmp_path / "deep.tif").write_bytes(encode(samples, "TIFF"))
    folder = open_tree(str(tmp_path))
    shown = show_photo(Record("deep.tif", "", "done"), folder, folder, None)
    before = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.before.partition(",")[2]))).convert("L"), int)
    assert np.abs(before - samples // 257).max() < 12


def test_status_counts(archive: Archive, bag: Path) -> None:
    code, told, _ = archive("status", bag / "data", "--journal", bag.parent / "journal.sqlite3")
    assert code == 0
    assert "4 done: 3 with damage, 1 without" in told
    assert "1 failed\n  1 photo-undecodable" in told


@pytest.mark.parametrize("way", ["by a service", "by this machine"])
def test_photos_that_were_left_but_look_damaged_are_shown(
    archive: Archive, scans: Path, restored: Path, tmp_path: Path, address: str, store: Path, way: str
) -> None:
    where = ("--server", address) if way == "by a service" else ("--local", "--model-store", store)
    archive("restore", scans, restored, *where, "--sensitivity", 0)
    _, told, _ = archive("status", restored)
    assert "3 done: 0 with damage, 3 without\n2 of those without look as if they had some" in told
    archive("report", restored, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<figcaption>(.*?), 0\.\d</figcaption>", page) == ["box 1/album/Schülerin.tif", "cover.jpg"]
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="cover.jpg"', page)) == 1
    with (tmp_path / "report" / "photos.csv").open(encoding="utf-8", newline="") as file:
        suspected = {row["path"]: row["suspected_from"] for row in csv.DictReader(file)}
    assert float(suspected["cover.jpg"]) > 0.0
    assert suspected["box 1/clean.png"] == ""


OF_VERSION_1 = """
ALTER TABLE photos DROP COLUMN suspected_from;
PRAGMA user_version = 1;
"""


def test_a_journal_from_before_suspicions_were_noted_is_read_and_gone_on_with(
    archive: Archive, scans: Path, restored: Path, address: str
) -> None:
    command = ("restore", scans, restored, "--server", address, "--exclude", "broken.png")
    archive(*command, "--limit", 1)
    path = restored / ".restoration-journal.sqlite3"
    with closing(sqlite3.connect(path)) as journal:
        journal.executescript(OF_VERSION_1)
    as_it_was = path.read_bytes()
    code, told, _ = archive("status", restored)
    assert (code, told[:7]) == (0, "1 done:")  # whichever was listed first
    assert path.read_bytes() == as_it_was
    code, _, told = archive(*command)
    assert code == 0
    assert "1 done before" in told
    code, told, _ = archive("status", restored)
    assert (code, told.splitlines()[0]) == (0, "3 done: 2 with damage, 1 without")


def test_a_journal_of_a_later_version_is_refused(archive: Archive, scans: Path, restored: Path, address: str) -> None:
    command = ("restore", scans, restored, "--server", address, "--limit", 1)
    archive(*command)
    with closing(sqlite3.connect(restored / ".restoration-journal.sqlite3")) as journal:
        journal.execute("PRAGMA user_version = 99")
    for asked in (command, ("status", restored)):
        code, _, told = archive(*asked)
        assert code == 2
        assert "has version 99, this software reads journals up to 2" in told


def test_verify_finds_what_was_changed_or_lost(archive: Archive, bag: Path) -> None:
    command = ("verify", bag / "data", "--journal", bag.parent / "journal.sqlite3")
    code, told, _ = archive(*command)
    assert (code, told) == (0, "4 checked, 0 not as they were written\n")
    (bag / "data" / "cover.jpg").write_bytes(b"something else")
    (bag / "data" / "box 1" / "clean.png").unlink()
    code, told, _ = archive(*command)
    assert code == 1
    assert "cover.jpg has sha256 " in told
    assert "box 1/clean.png is missing" in told
    assert "4 checked, 2 not" in told


@pytest.mark.parametrize("command", ["status", "report", "verify"])
def test_without_a_journal_the_message_says_so(archive: Archive, tmp_path: Path, command: str) -> None:
    code, _, told = archive(command, tmp_path)
    assert code == 2
    assert "there is no journal" in told
