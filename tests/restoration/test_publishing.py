import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from skimage import data

from restoration import publishing
from restoration.architectures import build_generator
from restoration.errors import ReleaseInvalid
from restoration.publishing import MAX_PART_BYTES
from restoration.release import list_releases, load_generator, read_release

from .small_generator import encode, make_generator


def visible_and_hidden(folder) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_numbers_count_up(publish, store):
    assert [publish().version for _ in range(2)] == ["0001", "0002"]
    assert visible_and_hidden(store) == {"0001", "0002", "last_number", ".lock"}


def test_a_number_is_never_used_again(release, publish, store):
    shutil.rmtree(store / "0001")
    assert publish().version == "0002"


def test_the_number_goes_on_where_the_record_was_lost(release, publish, store):
    (store / "last_number").unlink()
    assert publish().version == "0002"


def test_a_record_that_holds_no_number_stops_publishing(release, publish, store):
    (store / "last_number").write_text("many")
    with pytest.raises(ReleaseInvalid, match="last_number holds no number"):
        publish()
    assert list_releases(store) == ["0001"]


def test_publishers_side_by_side_get_different_numbers(publish, store):
    generators = [make_generator(seed=seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as threads:
        releases = list(threads.map(publish, generators))
    assert sorted(release.version for release in releases) == ["0001", "0002"]
    for generator, release in zip(generators, releases, strict=True):
        expected = generator.state_dict()["filler.head.weight"].half().float()
        assert torch.equal(load_generator(release).state_dict()["filler.head.weight"], expected)


def test_of_publishers_that_record_their_numbers_side_by_side_the_higher_number_stays(store, monkeypatch):
    """The first has read the record, and the second would write its number before the first does."""
    store.mkdir()
    has_read, second_is_done, read = Event(), Event(), publishing._last_number

    def read_slowly(store) -> int:
        number = read(store)
        if not has_read.is_set():
            has_read.set()
            second_is_done.wait(timeout=0.5)
        return number

    monkeypatch.setattr(publishing, "_last_number", read_slowly)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(publishing._record_number, store, 7)
        has_read.wait(timeout=5)
        publishing._record_number(store, 8)
        second_is_done.set()
        first.result()
    assert publishing._next_number(store) == 9


def test_a_finished_release_is_never_overwritten(release, publish, monkeypatch):
    """Another publisher takes the number between the look and the rename."""
    manifest = (release.path / "manifest.json").read_bytes()
    outdated, look = iter([1, 1, 1]), publishing._next_number
    monkeypatch.setattr(publishing, "_next_number", lambda store: next(outdated, None) or look(store))
    assert publish().version == "0002"
    assert (release.path / "manifest.json").read_bytes() == manifest


def test_a_generator_that_was_not_trained_to_an_end_is_not_published(publish, store):
    generator = make_generator()
    generator.filler.head.bias.data[0] = float("nan")
    with pytest.raises(ReleaseInvalid, match="not finite"):
        publish(generator)
    assert visible_and_hidden(store) == set()


def test_weights_too_large_for_fp16_are_not_published(publish, store):
    generator = make_generator()
    generator.filler.head.bias.data[0] = 70_000.0
    with pytest.raises(ReleaseInvalid, match="not finite"):
        publish(generator)
    assert list_releases(store) == []


def test_a_golden_photo_that_is_not_exact_is_refused(publish, store):
    with pytest.raises(ReleaseInvalid, match="expected png"):
        publish(golden=encode(data.astronaut()[:64, :64], "JPEG"))
    with pytest.raises(ReleaseInvalid, match="16 bits a channel, expected 8"):
        publish(golden=encode(data.camera()[:64, :64].astype(np.uint16) * 257))
    assert visible_and_hidden(store) == set()


def test_publishing_leaves_the_generator_as_it_was(publish):
    generator = make_generator().train()
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    publish(generator)
    assert generator.training
    for name, weight in generator.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])


def test_the_report_and_the_model_card_are_part_of_the_release(publish, tmp_path):
    report = tmp_path / "made_by_the_evaluation"
    (report / "sheets").mkdir(parents=True)
    (report / "scores.json").write_text("{}")
    (report / "sheets" / "strokes.png").write_bytes(encode(data.astronaut()[:32, :32]))
    release = publish(report_dir=report, model_card="# Card\n")
    assert {"report/scores.json", "report/sheets/strokes.png"} <= release.manifest.files.keys()
    assert (release.path / "README.md").read_text() == "# Card\n"


def test_large_weights_are_cut_into_numbered_parts_all_of_which_are_needed(publish, store):
    torch.manual_seed(0)
    generator = build_generator("pix2pix", {"channels": 28})
    release = publish(generator, golden=encode(data.astronaut()[:200, :200]))
    parts = [name for name in release.manifest.files if name.startswith("generator.safetensors")]
    assert parts == ["generator.safetensors.1-of-2", "generator.safetensors.2-of-2"]
    assert all(release.manifest.files[part].size_bytes <= MAX_PART_BYTES for part in parts)
    loaded = load_generator(read_release(store, "0001")).state_dict()
    assert torch.equal(loaded["head.0.weight"], generator.state_dict()["head.0.weight"].half().float())
    del release.manifest.files[parts[-1]]
    with pytest.raises(ReleaseInvalid, match="incomplete"):
        load_generator(release)
