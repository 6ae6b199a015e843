"""`python -m restoration`, run as a user does, and its `main` where a process of its own would only cost time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restoration.__main__ import main

from .small_generator import add_to_every_sample, encode, make_generator

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "old.jpg"
    path.write_bytes(encode(data.astronaut()[:200, :220], "JPEG", quality=92))
    return path


@pytest.fixture
def run(store, capsys):
    """Runs the command on `store`; returns exit code, stdout and stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--model-store", str(store), "--device", "cpu", "--precision", "float32"])
        return code, *capsys.readouterr()

    return run


def test_a_photo_is_restored_without_a_server(publish, store, old, tmp_path):
    publish(make_generator(damage_logit=20.0))
    new = tmp_path / "new.jpg"
    finished = subprocess.run(
        [sys.executable, "-m", "restoration", old, new, "--model-store", store],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "100.00% of the photo restored with release 0001 in" in finished.stdout
    assert finished.stdout.count("\n") == 1
    with Image.open(new) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (220, 200)


def test_a_photo_without_damage_is_copied_byte_for_byte(publish, run, old, tmp_path):
    publish(make_generator(damage_logit=-20.0))
    code, out, _ = run(old, tmp_path / "new.jpeg")
    assert code == 0
    assert "no damage found" in out
    assert (tmp_path / "new.jpeg").read_bytes() == old.read_bytes()


def test_a_photo_is_denoised_if_asked_for(publish, run, old, tmp_path):
    generator = make_generator(damage_logit=-20.0, denoiser_channels=(8, 12))
    add_to_every_sample(generator.denoiser, 0.1)
    publish(generator)
    code, out, _ = run(old, tmp_path / "new.png", "--denoise", "0.5")
    assert code == 0
    assert "no damage found, denoised by 0.5 with release 0001" in out
    with Image.open(old) as before, Image.open(tmp_path / "new.png") as after:
        assert np.asarray(after).mean() - np.asarray(before).mean() == pytest.approx(12.75, abs=1.0)


def test_the_new_files_name_chooses_the_format(release, run, old, tmp_path):
    assert run(old, tmp_path / "new.png")[0] == 0
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.format == "PNG"


def test_format_and_quality_can_be_asked_for(release, run, old, tmp_path):
    assert run(old, tmp_path / "new", "--format", "webp", "--quality", 60)[0] == 0
    with Image.open(tmp_path / "new") as picture:
        assert picture.format == "WEBP"


def test_the_history_is_written_unless_told_not_to(publish, run, old, tmp_path):
    publish(make_generator(damage_logit=9.0))
    for name, options in (("with.jpg", ()), ("without.jpg", ("--no-history", "--depth", "8"))):
        assert run(old, tmp_path / name, *options)[0] == 0
        assert (b"release 0001" in (tmp_path / name).read_bytes()) == (not options)


def test_the_damage_map_is_written_beside(publish, run, old, tmp_path):
    publish(make_generator(damage_logit=20.0))
    assert run(old, tmp_path / "new.jpg", "--damage-map", tmp_path / "map.png")[0] == 0
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size == (220, 200)
        assert (np.asarray(picture) == 255).all()


def test_an_older_release_can_be_asked_for(release, publish, run, old, tmp_path):
    publish()
    assert "release 0002" in run(old, tmp_path / "a.jpg")[1]
    assert "release 0001" in run(old, tmp_path / "b.jpg", "--release", "0001")[1]


def test_a_bad_newest_release_is_passed_over_with_a_warning(release, store, run, old, tmp_path):
    (store / "0002").mkdir()
    (store / "0002" / "manifest.json").write_text("{}")
    code, out, err = run(old, tmp_path / "new.jpg")
    assert code == 0
    assert "release 0001" in out
    assert err.startswith("warning: release 0002")


def test_nothing_is_overwritten_unless_told_to(release, run, old, tmp_path):
    before = old.read_bytes()
    code, _, err = run(old, old)
    assert code == 2
    assert "exists already" in err
    assert old.read_bytes() == before
    assert run(old, old, "--overwrite", "--sensitivity", "1")[0] == 0
    assert old.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"old.jpg", "model_store"}


@pytest.mark.parametrize("spelling", ["same", "dotted", "link", "hard link", "dangling link"])
def test_a_damage_map_is_not_written_over_the_restored_photo(release, run, old, tmp_path, spelling):
    (tmp_path / "folder").mkdir()
    new, damage_map = tmp_path / "new.png", tmp_path / "map.png"
    if spelling == "same":
        damage_map = new
    elif spelling == "dotted":
        damage_map = tmp_path / "folder" / ".." / "new.png"
    elif spelling == "dangling link":
        damage_map.symlink_to("new.png")
    else:
        new.write_bytes(b"an older one")
        damage_map.symlink_to(new) if spelling == "link" else damage_map.hardlink_to(new)
    before = set(tmp_path.iterdir())
    code, out, err = run(old, new, "--damage-map", damage_map, "--overwrite")
    assert (code, out) == (2, "")
    assert err == f"error: the damage map would be written over {new}; choose another name for --damage-map\n"
    assert set(tmp_path.iterdir()) == before


def test_a_damage_map_is_not_written_over_the_only_scan(release, run, old, tmp_path):
    before = old.read_bytes()
    code, _, err = run(old, tmp_path / "new.jpg", "--damage-map", old, "--overwrite")
    assert code == 2
    assert f"would be written over {old}" in err
    assert old.read_bytes() == before
    assert not (tmp_path / "new.jpg").exists()


def test_a_file_that_is_overwritten_keeps_its_mode(publish, run, old, tmp_path):
    publish(make_generator(damage_logit=20.0))
    new, damage_map = tmp_path / "new.jpg", tmp_path / "map.png"
    for path, mode in ((new, 0o600), (damage_map, 0o444)):
        path.write_bytes(b"an older one")
        path.chmod(mode)
    assert run(old, new, "--damage-map", damage_map, "--overwrite")[0] == 0
    assert [path.stat().st_mode & 0o7777 for path in (new, damage_map)] == [0o600, 0o444]
    with Image.open(new) as photo, Image.open(damage_map) as picture:
        assert photo.size == picture.size == (220, 200)


@pytest.mark.parametrize("has_target", [True, False])
def test_a_link_stays_one_and_what_it_points_to_is_written(release, run, old, tmp_path, has_target):
    (tmp_path / "elsewhere").mkdir()
    target, new = tmp_path / "elsewhere" / "target.jpg", tmp_path / "new.jpg"
    if has_target:
        target.write_bytes(b"an older one")
    new.symlink_to("elsewhere/target.jpg")
    assert run(old, new, *(["--overwrite"] if has_target else []))[0] == 0
    assert new.is_symlink()
    with Image.open(target) as picture:
        assert picture.size == (220, 200)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("option", ["new", "map"])
def test_what_is_no_regular_file_is_not_replaced(release, run, old, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    new = tmp_path / ("pipe" if option == "new" else "new.jpg")
    code, _, err = run(old, new, "--damage-map", tmp_path / ("map.png" if option == "new" else "pipe"), "--overwrite")
    assert code == 2
    assert f"{tmp_path / 'pipe'} is no regular file" in err
    assert (tmp_path / "pipe").is_fifo()
    assert not (tmp_path / "new.jpg").exists()


def test_a_name_may_be_as_long_as_the_file_system_takes(release, run, old, tmp_path):
    new = tmp_path / f"{'n' * 251}.jpg"
    code, _, err = run(old, new)
    assert code == 0, err
    assert new.exists()


def test_a_name_that_is_not_utf8_is_printed_escaped(release, store, old, tmp_path):
    new = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    finished = subprocess.run(
        [sys.executable, "-m", "restoration", old, new, "--model-store", store],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(f"{tmp_path}/caf\\udce9.jpg: ")
    assert new.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "new.jpg"], "missing.jpg: No such file"),
        (["text.jpg", "new.jpg"], "JPEG"),
        (["old.jpg", "nowhere/new.jpg"], "folder nowhere does not exist"),
        (["old.jpg", "new.jpg", "--sensitivity", "2"], "sensitivity is 2.0"),
        (["old.jpg", "new.jpg", "--denoise", "0.5"], "has no denoiser"),
        (["old.jpg", "new.jpg", "--release", "0007"], "holds no release 0007; it holds 0001"),
        (["old.jpg", "new.png", "--quality", "50"], "quality"),
        ([".", "new.jpg"], "Is a directory"),
    ],
    ids=["missing", "text", "folder", "sensitivity", "denoise", "release", "quality", "directory"],
)
def test_what_is_wrong_is_said_in_one_line(release, run, old, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "text.jpg").write_text("not a photo at all")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "new.jpg").exists()


def test_an_empty_store_is_said_in_one_line(run, old, tmp_path):
    code, _, err = run(old, tmp_path / "new.jpg")
    assert code == 2
    assert "holds no release that works" in err


def test_what_cannot_be_written_is_said_before_a_release_is_even_loaded(run, tmp_path):
    deep = tmp_path / "deep.tif"
    Image.fromarray(np.full((40, 30), 40_000, np.uint16)).save(deep)
    code, _, err = run(deep, tmp_path / "new.jpg")
    assert code == 2
    assert "16 bits a channel, but jpeg holds 8" in err
