"""`python -m archive restore`: over HTTP and on this machine's device."""

import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from ..service.serving import encode, grey_photo, scratched_photo
from .conftest import PHOTOS, Archive, files_of, start_archive
from .scripted_server import ScriptedServer, problem
from .scripted_server import restored as restored_answer


def test_the_tree_is_kept_and_one_bad_file_is_listed(
    archive: Archive, scans: Path, restored: Path, address: str
) -> None:
    before = files_of(scans)
    code, _, told = archive("restore", scans, restored, "--server", address)
    assert code == 1
    assert "3 restored, 2 of them with damage; 0 done before; 1 failed" in told
    assert "box 1/broken.png: photo-undecodable: " in told
    after = files_of(restored)
    assert after.keys() == PHOTOS
    assert after["box 1/clean.png"] == before["box 1/clean.png"]
    assert after["cover.jpg"] != before["cover.jpg"]
    assert files_of(scans) == before


def test_both_ways_give_the_same_bytes(
    archive: Archive, scans: Path, tmp_path: Path, address: str, store: Path
) -> None:
    over_http, here = tmp_path / "http", tmp_path / "here"
    archive("restore", scans, over_http, "--server", address)
    code, _, told = archive("restore", scans, here, "--local", "--model-store", store, "--at-once", 2)
    assert code == 1
    assert "box 1/broken.png: photo-undecodable: " in told
    assert files_of(here) == files_of(over_http)


def test_a_second_run_does_only_what_is_missing(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    (scans / "box 1" / "broken.png").unlink()
    archive("restore", scans, restored, "--server", scripted.address)
    (restored / "cover.jpg").unlink()
    (scans / "box 1" / "clean.png").touch()
    (scans / "new.png").write_bytes(encode(grey_photo()))
    scripted.seen.clear()
    code, _, told = archive("restore", scans, restored, "--server", scripted.address)
    assert code == 0
    assert "2 restored, 2 of them with damage; 2 done before; 0 failed" in told
    assert len(scripted.seen) == 2
    assert (restored / "cover.jpg").exists()


def test_every_photo_is_pinned_to_one_release(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    archive("restore", scans, restored, "--server", scripted.address)
    assert {query["release"] for query, _ in scripted.seen} == {"0001"}
    (scans / "new.png").write_bytes(encode(grey_photo()))
    scripted.answer = lambda _: problem(409, "wrong-release")
    code, _, told = archive("restore", scans, restored, "--server", scripted.address)
    assert code == 3
    assert "changed its release in mid-run" in told


def test_other_options_ask_before_they_restore_anew(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    (scans / "box 1" / "broken.png").unlink()
    archive("restore", scans, restored, "--server", scripted.address)
    again = ("restore", scans, restored, "--server", scripted.address, "--sensitivity", 0.7)
    code, _, told = archive(*again)
    assert code == 2
    assert "--redo" in told
    code, _, told = archive(*again, "--redo")
    assert code == 0
    assert "3 restored" in told


def test_denoising_goes_to_the_service_and_is_remembered(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    (scans / "box 1" / "broken.png").unlink()
    archive("restore", scans, restored, "--server", scripted.address)
    assert not any("denoise" in query for query, _ in scripted.seen)  # an older service would refuse it
    code, _, told = archive("restore", scans, restored, "--server", scripted.address, "--denoise", 0.5, "--redo")
    assert (code, "3 restored" in told) == (0, True)
    assert [query["denoise"] for query, _ in scripted.seen[3:]] == ["0.5"] * 3
    assert archive("restore", scans, restored, "--server", scripted.address)[0] == 2


@pytest.mark.parametrize("way", ["--server", "--local"])
def test_a_release_that_cannot_denoise_stops_the_run(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer, store: Path, way: str
) -> None:
    scripted.answer = lambda _: problem(422, "denoiser-missing")
    options = (way, scripted.address) if way == "--server" else (way, "--model-store", store)
    code, _, told = archive("restore", scans, restored, *options, "--denoise", 1)
    assert code == (3 if way == "--server" else 2)
    assert ("as told" if way == "--server" else "has no denoiser") in told
    assert files_of(restored) == {}


def test_a_service_that_is_gone_stops_the_run_and_consumes_nothing(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    (scans / "box 1" / "broken.png").unlink()

    def gone(_: bytes):
        scripted.is_ready = False
        return problem(503, "draining", Retry_After="0")

    scripted.answer = gone
    code, _, told = archive("restore", scans, restored, "--server", scripted.address, "--patience-seconds", 0.1)
    assert code == 3
    assert "no service is ready any more" in told
    scripted.is_ready, scripted.answer = True, restored_answer
    code, _, told = archive("restore", scans, restored, "--server", scripted.address)
    assert code == 0
    assert "3 restored" in told


def test_a_photo_that_takes_the_service_down_does_not_stop_the_others(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    poison = (scans / "cover.jpg").read_bytes()
    scripted.answer = lambda body: (0, {}, b"") if body == poison else restored_answer(body)
    command = ("restore", scans, restored, "--server", scripted.address, "--exclude", "broken.png", "--at-once", 1)
    code, _, told = archive(*command, "--patience-seconds", 0.1)
    assert code == 1
    assert "cover.jpg: no-answer: " in told
    assert files_of(restored).keys() == PHOTOS - {"cover.jpg"}


def test_a_photo_that_the_service_has_no_room_for_fails_for_the_reason_it_gave(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    scripted.answer = lambda _: problem(429, "quota-exceeded", Retry_After="0")
    command = ("restore", scans, restored, "--server", scripted.address, "--include", "cover.jpg")
    code, _, told = archive(*command, "--patience-seconds", 0.1)
    assert code == 1
    assert "cover.jpg: quota-exceeded: " in told


def test_a_journal_that_takes_no_more_stops_the_run(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    command = ("restore", scans, restored, "--server", scripted.address, "--exclude", "broken.png")
    archive(*command, "--limit", 1)
    with sqlite3.connect(restored / ".restoration-journal.sqlite3") as journal:
        refuse = "BEFORE INSERT ON photos BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        journal.execute(f"CREATE TRIGGER full {refuse}")
    journal.close()
    code, _, told = archive(*command)
    assert code == 3
    assert "the journal takes no more: database or disk is full; make room" in told


def test_a_release_that_is_not_served_is_refused_and_leaves_the_journal_free(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    command = ("restore", scans, restored, "--server", scripted.address, "--exclude", "broken.png")
    code, _, told = archive(*command, "--release", "0099")
    assert code == 2
    assert "the run is of release 0099, but 0001 is served" in told
    assert scripted.seen == []
    code, _, _ = archive(*command)
    assert code == 0


def test_a_service_that_is_not_there_yet_is_waited_for_aloud(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    scripted.is_ready = False
    code, _, told = archive("restore", scans, restored, "--server", scripted.address, "--patience-seconds", 0.1)
    assert code == 2
    assert f"no service is ready at {scripted.address}; waiting 0.1 s" in told


@pytest.mark.parametrize(
    "address", ["localhost:8000", "http://", "http://[::1", "http://127.0.0.1:abc", "http://127.0.0.1:99999"]
)
def test_what_is_no_address_is_refused_at_once(archive: Archive, scans: Path, restored: Path, address: str) -> None:
    code, _, told = archive("restore", scans, restored, "--server", address)
    assert code == 2
    assert f"{address} is no address of a service" in told


@pytest.mark.parametrize("key", ["schlüssel-1", "secret-1\n", "secret 1"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_printed(
    archive: Archive,
    scans: Path,
    restored: Path,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setenv("RESTORE_API_KEY", key)
    code, _, told = archive("restore", scans, restored, "--server", scripted.address, "--patience-seconds", 0)
    assert code == 2
    assert "the key in RESTORE_API_KEY holds" in told
    assert key.strip() not in told


def test_a_source_that_is_not_there_is_refused(archive: Archive, tmp_path: Path, restored: Path) -> None:
    for option in ((), ("--dry-run",)):
        code, _, told = archive("restore", tmp_path / "scams", restored, "--local", *option)
        assert code == 2
        assert "scams does not exist" in told


def test_links_that_lead_nowhere_are_failures_of_their_own(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    for name in ("loop.tif", "loop.txt"):
        (scans / name).symlink_to(name)
    run = ("restore", scans, restored, "--server", scripted.address, "--exclude", "broken.png")
    code, listed, told = archive(*run, "--dry-run")
    assert code == 0
    assert set(listed.splitlines()) == PHOTOS
    assert "loop.tif: " in told
    code, _, told = archive(*run)
    assert code == 1
    assert "3 restored, 3 of them with damage; 0 done before; 1 failed" in told
    assert "loop.tif: source-unreadable: " in told
    assert files_of(restored).keys() == PHOTOS
    (scans / "loop.tif").unlink()
    assert archive(*run)[0] == 0
    assert "0 failed" in archive("status", restored)[1]


def test_a_file_that_somebody_else_put_there_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    restored.mkdir()
    (restored / "cover.jpg").write_bytes(b"the only copy")
    code, _, told = archive("restore", scans, restored, "--server", scripted.address)
    assert code == 1
    assert "cover.jpg: name-taken: " in told
    assert (restored / "cover.jpg").read_bytes() == b"the only copy"


def test_a_file_where_a_damage_map_would_go_is_not_replaced(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "cover.jpg.png").write_bytes(b"the only copy")
    command = ("restore", scans, restored, "--server", scripted.address, "--damage-maps", tmp_path / "maps")
    code, _, told = archive(*command, "--include", "cover.jpg")
    assert code == 1
    assert "cover.jpg: name-taken: " in told
    assert (tmp_path / "maps" / "cover.jpg.png").read_bytes() == b"the only copy"


@pytest.mark.parametrize("inside", [".", "box 1", ".."])
def test_a_destination_in_the_source_is_refused(archive: Archive, scans: Path, inside: str) -> None:
    code, _, told = archive("restore", scans, scans / inside, "--server", "http://127.0.0.1:9")
    assert code == 2
    assert "lie in one another" in told


@pytest.mark.parametrize(("outputs", "maps"), [("out", "out"), ("out", "out/maps"), ("out/photos", "out")])
def test_damage_maps_among_the_restored_photos_are_refused(
    archive: Archive, scans: Path, tmp_path: Path, scripted: ScriptedServer, outputs: str, maps: str
) -> None:
    run = ("restore", scans, tmp_path / outputs, "--server", scripted.address)
    code, _, told = archive(*run, "--damage-maps", tmp_path / maps)
    assert code == 2
    assert "lie in one another; damage maps go to a folder apart from the restored photographs" in told
    assert not (tmp_path / "out").exists()


def test_what_is_chosen_is_what_is_restored(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    run = ("restore", scans, restored, "--server", scripted.address)
    archive(*run, "--include", "*.TIF", "--include", "box 1/*.png", "--exclude", "broken*")
    assert files_of(restored).keys() == PHOTOS - {"cover.jpg"}
    code, listed, told = archive(*run, "--dry-run")
    assert code == 0
    assert sorted(listed.splitlines()) == ["box 1/broken.png", "cover.jpg"]
    assert "2 photos to restore" in told
    _, listed, _ = archive(*run, "--dry-run", "--redo")
    assert set(listed.splitlines()) == PHOTOS | {"box 1/broken.png"}
    archive(*run, "--exclude", "broken*", "--limit", 1)
    assert len(files_of(restored)) == 3


def test_only_damaged_photos_and_their_maps(archive: Archive, scans: Path, tmp_path: Path, address: str) -> None:
    restored, maps = tmp_path / "restored", tmp_path / "maps"
    run = ("restore", scans, restored, "--server", address, "--damage-maps", maps, "--exclude", "broken.png")
    code, _, _ = archive(*run, "--only-damaged")
    assert code == 0
    assert files_of(restored).keys() == PHOTOS - {"box 1/clean.png"}
    assert files_of(maps).keys() == {"cover.jpg.png", "box 1/album/Schülerin.tif.png"}
    _, _, told = archive(*run, "--only-damaged")
    assert "0 restored, 0 of them with damage; 3 done before" in told
    archive(*run)
    assert files_of(restored).keys() == PHOTOS


def test_a_dry_run_leaves_nothing_behind(archive: Archive, scans: Path, restored: Path) -> None:
    code, listed, _ = archive("restore", scans, restored, "--local", "--dry-run")
    assert code == 0
    assert set(listed.splitlines()) == PHOTOS | {"box 1/broken.png"}
    assert not restored.exists()


def test_names_that_are_no_utf_8_come_through(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    name = os.fsdecode("Stra\xdfe.png".encode("latin-1"))
    (scans / name).write_bytes(encode(scratched_photo()))
    archive("restore", scans, restored, "--server", scripted.address)
    assert name in files_of(restored)
    assert archive("report", restored)[0] == 0
    assert archive("verify", restored)[0] == 0
    (restored / name).unlink()
    assert r"Stra\udcdfe.png is missing" in archive("verify", restored)[1]


def test_names_are_listed_on_terminals_that_cannot_print_them(scans: Path, restored: Path) -> None:
    run = start_archive("restore", scans, restored, "--local", "--dry-run", PYTHONIOENCODING="ascii")
    listed, told = run.communicate()
    assert run.returncode == 0, told
    assert r"box 1/album/Sch\xfclerin.tif" in listed.splitlines()


def test_a_file_that_is_too_large_is_not_read(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    (scans / "film.png").write_bytes(bytes(2_000_000))
    _, _, told = archive("restore", scans, restored, "--server", scripted.address, "--max-bytes", 1_000_000)
    assert "film.png: file-too-large: " in told


def test_two_runs_at_once_on_one_journal_are_refused(
    archive: Archive, scans: Path, restored: Path, scripted: ScriptedServer
) -> None:
    codes = []

    def second_run(body: bytes):
        scripted.answer = restored_answer
        run = start_archive("restore", scans, restored, "--server", scripted.address)
        codes.append((run.wait(), run.communicate()[1]))
        return restored_answer(body)

    scripted.answer = second_run
    archive("restore", scans, restored, "--server", scripted.address)
    assert codes[0][0] == 2
    assert "another run writes to the journal" in codes[0][1]


def test_a_signal_lets_what_is_in_the_works_finish(scans: Path, restored: Path, scripted: ScriptedServer) -> None:
    def stop(body: bytes):
        run.send_signal(signal.SIGTERM)
        scripted.answer = restored_answer
        return restored_answer(body)

    scripted.answer = stop
    run = start_archive("restore", scans, restored, "--server", scripted.address, "--at-once", 1)
    _, told = run.communicate()
    assert run.returncode == 3
    assert "stopped by a signal" in told
    assert len(files_of(restored)) == 1


def test_a_run_that_is_killed_again_and_again_ends_up_complete(
    archive: Archive, tmp_path: Path, restored: Path, scripted: ScriptedServer
) -> None:
    """Killed at random moments, at least five times; whatever the moment, nothing is lost and nothing done twice."""
    scans = tmp_path / "scans"
    for number in range(200):
        (scans / f"box {number // 50}").mkdir(parents=True, exist_ok=True)
        (scans / f"box {number // 50}" / f"{number}.png").write_bytes(encode(grey_photo(24, 24) + number % 8))
    moments = random.Random(5)
    num_kills = 0
    while num_kills < 5:
        run = start_archive("restore", scans, restored, "--server", scripted.address, "--at-once", 4)
        num_seen = len(scripted.seen) + moments.randrange(1, 30)
        while len(scripted.seen) < num_seen and run.poll() is None:
            time.sleep(0.001)
        run.kill()
        run.communicate()
        num_kills += 1
    assert len(files_of(restored)) < 200
    code, _, told = archive("restore", scans, restored, "--server", scripted.address)
    assert code == 0, told
    assert files_of(restored) == files_of(scans)
    assert len(scripted.seen) <= 200 + 4 * num_kills
    code, counted, _ = archive("status", restored)
    assert "200 done" in counted
    assert "begun" not in counted
    assert archive("verify", restored)[0] == 0


def test_a_journal_survives_the_kill_as_a_whole_database(scans: Path, restored: Path, scripted: ScriptedServer) -> None:
    def kill(body: bytes):
        run.kill()
        return restored_answer(body)

    scripted.answer = kill
    run = start_archive("restore", scans, restored, "--server", scripted.address)
    run.communicate()
    with sqlite3.connect(restored / ".restoration-journal.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
