"""The journal: what it holds, what it forgets, and what is said when it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archive.trees import open_tree

from ..service.serving import encode, grey_photo
from .conftest import REPOSITORY, Archive
from .scripted_server import ScriptedServer

NOT_UTF_8 = os.fsdecode(b"caf\xe9")


def run_mounted(folder: Path, script: str, *arguments: object) -> tuple[int, str]:
    """A shell that may mount on `folder`, "$0"; "$@" is the command. Returns its exit status and all that it said."""
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshared, f"mount -t tmpfs none {folder}"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    command = [*unshared, script, folder, sys.executable, "-m", "archive", *arguments]
    parts = [str(part) for part in command]
    ended = subprocess.run(
        parts, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return ended.returncode, ended.stdout


def test_a_failure_that_quotes_a_name_that_is_no_utf_8_is_listed(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    restored.mkdir()
    for folder in (scans, restored):
        (folder / f"{NOT_UTF_8}.tif").write_bytes(encode(grey_photo(), "TIFF"))
    code, _, told = archive("restore", scans, restored, "--server", scripted.address, "--include", "*.tif")
    assert code == 1
    assert "1 failed" in told
    assert r"caf\udce9.tif: name-taken: " in told


def test_a_photo_that_cannot_even_be_noted_stops_the_run(
    archive: Archive, tmp_path: Path, restored: Path, scripted: ScriptedServer
) -> None:
    scans = open_tree("memory://unnoted")
    scans.write("\ud800.png", encode(grey_photo()))
    code, _, told = archive("restore", scans.address, restored, "--server", scripted.address)
    assert code == 3
    assert r"stopped: what became of '\ud800.png' cannot be noted: UnicodeEncodeError" in told


def test_folders_whose_names_are_no_utf_8_are_remembered(
    archive: Archive, scans: Path, tmp_path: Path, address: str
) -> None:
    scans = scans.rename(tmp_path / NOT_UTF_8)
    restored = tmp_path / f"{NOT_UTF_8} restored"
    run = ("restore", scans, restored, "--server", address, "--damage-maps", tmp_path / f"{NOT_UTF_8} maps")
    run = (*run, "--exclude", "broken.png")
    assert archive(*run)[0] == 0
    assert "3 done before" in archive(*run)[2]
    assert archive("verify", restored)[0] == 0
    assert archive("report", restored)[0] == 0


def test_a_failure_whose_source_is_gone_is_forgotten(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    run = ("restore", scans, restored, "--server", scripted.address, "--max-bytes")
    (scans / "film.png").write_bytes(bytes(2_000_000))
    assert "2 failed" in archive(*run, 1_000_000, "--include", "film.png", "--include", "broken.png")[2]
    (scans / "film.png").unlink()
    assert archive(*run, 1_000_000, "--include", "cover.jpg")[0] == 0
    assert "1 failed\n" in archive("status", restored)[1]


def test_a_failure_with_an_earlier_output_is_kept_so_that_this_stays_ours(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    run = ("restore", scans, restored, "--server", scripted.address, "--include", "cover.jpg")
    archive(*run)
    photo = (scans / "cover.jpg").read_bytes()
    (scans / "cover.jpg").write_bytes(bytes(1000))
    archive(*run, "--max-bytes", 100)
    (scans / "cover.jpg").unlink()
    archive(*run)
    (scans / "cover.jpg").write_bytes(photo + b"more")
    assert archive(*run)[0] == 0


@pytest.mark.parametrize("kind", ["folder", "other file"])
def test_what_is_no_journal_is_refused(
    archive: Archive, scans: Path, restored: Path, tmp_path: Path, kind: str
) -> None:
    journal = tmp_path / "journal"
    if kind == "folder":
        journal.mkdir()
    else:
        journal.write_text("names of the boxes, and nothing that SQLite would know" * 100, encoding="utf-8")
    options = ("--journal", journal)
    for asked in (("restore", scans, restored, "--server", "http://127.0.0.1:9"), ("status", restored)):
        code, _, told = archive(*asked, *options)
        assert code == 2
        assert f"journal {journal}" in told or f"{journal} is no journal" in told


def test_a_destination_that_is_full_at_the_start_is_refused_and_good_when_there_is_room(
    scans: Path, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    script = """
        mount -t tmpfs -o size=4k none "$0" && "$@"; echo "status $?"
        mount -o remount,size=1m "$0" && "$@"; echo "status $?"
    """
    options = ("--server", "http://127.0.0.1:9", "--patience-seconds", 0)
    _, told = run_mounted(full, script, "restore", scans, full, *options)
    when_full, when_there_is_room, _ = told.split("status 2\n")
    assert "cannot be opened: " in when_full
    assert "http://127.0.0.1:9/readyz did not answer" in when_there_is_room


@pytest.mark.parametrize("command", ["status", "verify", "report"])
def test_a_destination_that_is_read_only_can_be_looked_at(
    archive: Archive, scans: Path, restored: Path, tmp_path: Path, scripted: ScriptedServer, command: str
) -> None:
    archive("restore", scans, restored, "--server", scripted.address, "--exclude", "broken.png")
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    rest = (tmp_path / "report",) if command == "report" else ()
    code, told = run_mounted(restored, script, command, restored, *rest)
    assert code == 0, told
    assert {"status": "3 done", "verify": "3 checked, 0 not", "report": "wrote"}[command] in told
