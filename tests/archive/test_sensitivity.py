"""Which sensitivity leaves a collection's undamaged photographs as they are, and what is said where none does."""

from pathlib import Path

import pytest

from archive.sensitivity import NEVER, choose_sensitivity, count_altered

from ..service.serving import encode, grey_photo, scratched_photo
from .conftest import Archive


def test_an_altered_photo_is_altered_at_every_higher_sensitivity() -> None:
    altered_from = [0.0, 0.3, 0.5, NEVER]
    assert [count_altered(altered_from, each) for each in (0.0, 0.2, 0.3, 0.5, 1.0)] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("altered_from", "chosen"),
    [
        ([NEVER] * 20, 1.0),
        ([*[NEVER] * 19, 0.2], 1.0),  # one of twenty is 5 %
        ([*[NEVER] * 18, 0.2, 0.4], 0.3),
        ([*[NEVER] * 18, 0.0, 0.4], 0.3),
        ([*[NEVER] * 18, 0.0, 0.0], None),
        ([0.3], 0.2),
    ],
)
def test_the_highest_that_alters_few_enough_is_chosen(altered_from: list[float], chosen: float | None) -> None:
    assert choose_sensitivity(altered_from, 0.95) == chosen


@pytest.mark.parametrize("way", ["server", "local"])
def test_the_highest_sensitivity_that_leaves_undamaged_photos_alone_is_told(
    archive: Archive, tmp_path: Path, address: str, store: Path, way: str
) -> None:
    clean = tmp_path / "clean"
    (clean / "box 1").mkdir(parents=True)
    for index in range(3):
        (clean / "box 1" / f"{index}.png").write_bytes(encode(grey_photo()))
    (clean / "a white line.png").write_bytes(encode(scratched_photo()))
    how = ("--server", address) if way == "server" else ("--local", "--model-store", store)
    code, out, _ = archive("sensitivity", clean, *how, "--unchanged", "0.9")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "sensitivity  altered, of 4"
    altered = [float(line.split()[0]) for line in lines[1:-1] if line.split()[1] == "1"]
    chosen = float(lines[-1].split()[1])
    assert 0.0 < min(altered) <= 0.5  # as it is at the default
    assert chosen == pytest.approx(min(altered) - 0.1)
    assert archive("sensitivity", clean, *how, "--unchanged", "0.75")[1].splitlines()[-1].startswith("--sensitivity 1 ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["clean", "box 1", "a white line.png", "0.png", "1.png", "2.png"]
    )


def test_the_sensitivity_that_is_told_leaves_them_alone(archive: Archive, tmp_path: Path, address: str) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "a white line.png").write_bytes(encode(scratched_photo()))
    chosen = float(archive("sensitivity", tmp_path / "clean", "--server", address)[1].splitlines()[-1].split()[1])
    for sensitivity, damaged in ((chosen, 0), (chosen + 0.1, 1)):
        restored = tmp_path / f"restored {damaged}"
        how = ("--server", address, "--sensitivity", f"{sensitivity:g}")
        _, _, told = archive("restore", tmp_path / "clean", restored, *how)
        assert f"1 restored, {damaged} of them with damage" in told


def test_what_cannot_be_restored_is_named_and_the_others_count(archive: Archive, scans: Path, address: str) -> None:
    code, out, told = archive("sensitivity", scans, "--server", address)
    assert code == 1
    assert out.splitlines()[0] == "sensitivity  altered, of 3"
    assert "box 1/broken.png: photo-undecodable" in told


def test_nothing_is_told_where_every_photo_failed(archive: Archive, tmp_path: Path, address: str) -> None:
    (tmp_path / "broken.png").write_bytes(encode(grey_photo())[:60])
    assert archive("sensitivity", tmp_path, "--server", address)[:2] == (1, "")


def test_a_folder_without_photos_is_refused(archive: Archive, tmp_path: Path, address: str) -> None:
    code, _, told = archive("sensitivity", tmp_path, "--server", address)
    assert (code, "holds no photos" in told) == (2, True)


@pytest.mark.parametrize("how", [(), ("--local", "--server", "http://127.0.0.1:9")])
def test_one_way_must_be_said(archive: Archive, scans: Path, how: tuple[str, ...]) -> None:
    code, _, told = archive("sensitivity", scans, *how)
    assert (code, "--server ADDRESS and --local" in told) == (2, True)


def test_a_service_that_is_not_there_is_told_of(archive: Archive, scans: Path) -> None:
    code, out, told = archive("sensitivity", scans, "--server", "http://127.0.0.1:9", "--patience-seconds", "0")
    assert (code, out) == (2, "")
    assert "127.0.0.1:9" in told
