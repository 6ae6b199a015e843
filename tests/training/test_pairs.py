import contextlib
import dataclasses
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restoration.errors import DataError
from training.damage import DamageConfig, Pairs
from training.pairs import (
    BatchShape,
    PairedFolders,
    _composed_ahead,
    batch_seed,
    iterate_batches,
    load_paired_folders,
    make_batch,
)
from training.photos import CropConfig, load_photos, read_photo

from .conftest import names_for
from .small_recipes import CPU, DETECT_FILL, Interrupted, make_resident_source, make_source

SHAPE = BatchShape(num_crops=3, crop_px=32)
WHOLE = CropConfig(zoom=(1.0, 1.0))


def load(damaged: Path, clean: Path, **changes) -> PairedFolders:
    options = {"held_out_share": 0.05, "short_side_px": 320, "crops": CropConfig(), "seed": 0}
    return load_paired_folders(damaged, clean, "train", **(options | changes))


def equal(first: Pairs, second: Pairs) -> bool:
    return all(a.equal(b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


@pytest.fixture
def copies(paired_folders, tmp_path) -> tuple[Path, Path]:
    """The paired folders, to be spoilt."""
    for folder in paired_folders:
        (tmp_path / folder.name).mkdir()
        for path in folder.iterdir():
            (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    return tmp_path / "damaged", tmp_path / "clean"


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["drawn", "paired"])
def make(request, bank, paired_folders):
    """Makes a source from a seed, as a new run does."""
    if request.param == "drawn":
        return lambda seed: dataclasses.replace(make_source(DETECT_FILL, bank), seed=seed)
    return lambda seed: load(*paired_folders, seed=seed)


def test_a_batch_depends_on_seed_and_step_alone(make):
    first, second = make(3), make(3)
    make_batch(first, 0, SHAPE, CPU)  # what was made before does not matter
    torch.manual_seed(99)
    batch = make_batch(first, 5, SHAPE, CPU)
    assert batch.damaged.shape == (3, 3, 32, 32)
    assert equal(batch, make_batch(second, 5, SHAPE, CPU))
    assert not equal(batch, make_batch(first, 6, SHAPE, CPU))
    assert not equal(batch, make_batch(make(4), 5, SHAPE, CPU))


def test_seeds_of_steps_are_all_different_and_fit_a_generator():
    seeds = {batch_seed(seed, step) for seed in range(5) for step in range(200)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_phase_may_have_damage_of_its_own(bank):
    source = make_source(DETECT_FILL, bank)
    none = dataclasses.replace(SHAPE, damage=DamageConfig(num_layers_shares=(1.0,)))
    assert make_batch(source, 1, none, CPU).mask.sum() == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_make_the_same_batches_and_leave_the_random_state_alone(bank):
    source, steps = make_source(DETECT_FILL, bank), range(4, 7)
    before = torch.get_rng_state()
    made_ahead = list(iterate_batches(source, steps, SHAPE, CPU, num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)
    made_here = list(iterate_batches(source, steps, SHAPE, CPU, num_workers=0))
    assert len(made_ahead) == 3
    assert all(equal(a, b) for a, b in zip(made_ahead, made_here, strict=True))


# --- paired folders ---------------------------------------------------------------------------------------------------


def test_the_mask_of_a_pair_is_where_the_two_differ_in_every_orientation(paired_folders):
    batch = make_batch(load(*paired_folders, crops=WHOLE), 0, BatchShape(8, 64), CPU)
    assert batch.mask.sum(dim=(1, 2, 3)).tolist() == [24 * 24] * 8
    different = (batch.damaged != batch.clean).any(dim=1, keepdim=True)
    assert torch.equal(batch.mask.bool(), different)


def test_pairs_are_found_by_name_whatever_their_suffix(copies):
    damaged, clean = copies
    for path in list(damaged.iterdir()):
        Image.fromarray(read_photo(path)).save(path.with_suffix(".tiff"))
        path.unlink()
    assert len(load(damaged, clean).stacked) == 2  # and one held out


def test_pairs_are_split_by_the_clean_name_as_the_evaluation_is(copies):
    """Even where the damaged picture's own name would fall to the other split."""
    damaged, clean = copies
    name = names_for("evaluation", 1)[0]
    for folder, suffix in ((damaged, ".tiff"), (clean, ".png")):
        picture = Image.fromarray(read_photo(next(folder.iterdir())))
        picture.save(folder / Path(name).with_suffix(suffix))
    held_out = load_photos(clean, "evaluation", held_out_share=0.05)
    assert held_out.names == [name]
    assert len(load(damaged, clean).stacked) == 3


def test_pictures_without_a_partner_are_named(copies):
    damaged, clean = copies
    (damaged / "lonely.png").write_bytes(next(clean.iterdir()).read_bytes())
    next(damaged.glob("photo_0*")).unlink()
    with pytest.raises(DataError, match=r"2 pictures are in only one of .*damaged and .*clean: lonely, photo_0;"):
        load(damaged, clean)


def test_two_pictures_of_one_name_are_refused(copies):
    damaged, clean = copies
    path = next(clean.glob("photo_0*"))
    Image.fromarray(read_photo(path)).save(path.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"clean holds several pictures that differ in their suffix alone, photo_0"):
        load(damaged, clean)


def test_a_pair_of_two_sizes_is_named(copies):
    damaged, clean = copies
    path = damaged / names_for("train", 1)[0]
    Image.fromarray(read_photo(path)).resize((64, 48)).save(path)
    with pytest.raises(DataError, match=rf"the pair {path.stem} has sizes \(48, 64\) and \(64, 64\)"):
        load(damaged, clean)


def test_a_folder_that_is_empty_or_missing_is_named(copies, tmp_path):
    damaged, clean = copies
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no picture"):
        load(tmp_path / "empty", clean)
    with pytest.raises(DataError, match=r"missing is not a folder"):
        load(damaged, tmp_path / "missing")


def test_folders_without_a_pair_to_train_on_are_named(copies):
    with pytest.raises(DataError, match=r"damaged and .*clean hold no pair for train"):
        load(*copies, held_out_share=1.0)


def test_a_pair_is_made_smaller_together(copies):
    source = load(*copies, short_side_px=32)
    assert [stacked.shape for stacked in source.stacked] == [(32, 32, 6)] * 2
    assert np.abs(source.stacked[0][..., :3].astype(int) - source.stacked[0][..., 3:]).max() > 50


def test_pairs_of_a_group_are_made_at_once_and_each_step_has_its_own(bank):
    source = make_resident_source(DETECT_FILL, bank, CPU)
    batches = [make_batch(source, step, SHAPE, CPU) for step in range(6)]
    larger = dataclasses.replace(SHAPE, num_crops=3 * SHAPE.num_crops)
    at_once = source.compose(source.draw(1, larger), 1, larger)
    for index, batch in enumerate(batches[3:]):
        rows = slice(index * SHAPE.num_crops, (index + 1) * SHAPE.num_crops)
        assert all(torch.equal(planes, vars(at_once)[name][rows]) for name, planes in vars(batch).items())
    assert not any(equal(*two) for two in itertools.combinations(batches, 2))


def test_pairs_are_used_again_in_other_batches_and_held_another_way(bank):
    source = make_resident_source(DETECT_FILL, bank, CPU)
    shape = dataclasses.replace(SHAPE, num_uses=5)
    batches = [make_batch(source, step, shape, CPU) for step in range(18)]  # five times three, then the next group
    uses = [whole(batches[first : first + 3]) for first in range(0, 18, 3)]
    assert equal(uses[0], whole([make_batch(source, step, SHAPE, CPU) for step in range(3)]))
    assert equal(uses[5], whole([make_batch(source, step, SHAPE, CPU) for step in range(15, 18)]))  # group 5
    for again in uses[1:5]:
        assert not torch.equal(again.mask, uses[0].mask)
        assert sorted(again.mask.sum((1, 2, 3)).tolist()) == sorted(uses[0].mask.sum((1, 2, 3)).tolist())
        assert not again.mask[(again.damaged == again.clean).all(dim=1, keepdim=True)].any()  # turned together
    assert len({tuple(each.damaged.sum((1, 2, 3)).tolist()) for each in uses}) == 6  # each in another order


def whole(batches: list[Pairs]) -> Pairs:
    return Pairs(**{name: torch.cat([getattr(each, name) for each in batches]) for name in vars(batches[0])})


# --- ahead of need ----------------------------------------------------------------------------------------------------


class StandInStream:
    """For a device's stream on a machine without one: keeps which events it recorded, and for which it waited."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.recorded: list[object] = []
        self.awaited: list[object] = []
        self.kept_for: list[torch.Tensor] = []

    def record_event(self) -> object:
        self.recorded.append(object())
        return self.recorded[-1]

    def wait_event(self, event: object) -> None:
        self.awaited.append(event)


@pytest.fixture
def streams(monkeypatch) -> dict[str, StandInStream]:
    """Stands in for CUDA's streams and pinned memory: `training`, and `own`, in which pairs are to be composed."""
    streams = {"training": StandInStream(), "own": StandInStream()}
    of_thread = threading.local()

    @contextlib.contextmanager
    def use(stream: StandInStream):
        of_thread.stream = stream
        yield
        del of_thread.stream

    def current(device: torch.device) -> StandInStream:
        return getattr(of_thread, "stream", streams["training"])

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams["own"])
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda planes, stream: stream.kept_for.append(planes))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda drawn: drawn)
    return streams


def test_groups_are_composed_ahead_in_a_stream_of_their_own_and_what_fails_there_is_heard_of(bank, streams):
    def note_stream(pairs: Pairs) -> Pairs:
        assert torch.cuda.current_stream(CPU) is streams["own"]
        return pairs

    source = Interrupted(make_resident_source(DETECT_FILL, bank, CPU), 2, note_stream)
    steps = range(5, 9)  # the last of group 1, and all of group 2
    ahead = list(_composed_ahead(source, steps, SHAPE, CPU))
    assert source.asked_for == [1, 2]
    assert streams["training"].awaited == streams["own"].recorded
    assert len(streams["training"].kept_for) == 2 * len(dataclasses.fields(Pairs))
    assert len(ahead) == 4
    for step, pairs in zip(steps, ahead, strict=True):
        assert equal(pairs, make_batch(source.source, step, SHAPE, CPU))
    assert list(_composed_ahead(source, range(9, 9), SHAPE, CPU)) == []
    twice = dataclasses.replace(SHAPE, num_uses=2)
    again = dataclasses.replace(source, asked_for=[], happens=note_stream)
    of_two_groups = range(4, 8)  # the end of the second use of group 0, and the start of group 2
    for step, pairs in zip(of_two_groups, _composed_ahead(again, of_two_groups, twice, CPU), strict=True):
        assert equal(pairs, make_batch(source.source, step, twice, CPU))
    assert again.asked_for == [0, 2]

    def stop(pairs: Pairs) -> Pairs:
        raise KeyboardInterrupt

    failing = _composed_ahead(dataclasses.replace(source, happens=stop), steps, SHAPE, CPU)
    assert equal(next(failing), ahead[0])
    with pytest.raises(KeyboardInterrupt):
        next(failing)
    stopped_early = _composed_ahead(source, range(10**6), SHAPE, CPU)
    next(stopped_early)
    stopped_early.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pairs"]
