"""Where a step's pairs come from: clean photographs damaged on the fly, or two folders with equal names.

A source makes any step's batch from (seed, step) alone. So a resumed run goes on exactly, worker processes may make
batches ahead, and an error can name the batch that caused it.
"""

import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from queue import Full, Queue
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from restoration.errors import DataError
from training.damage import DamageConfig, Pairs, make_pairs, pairs_from
from training.noise import NoiseConfig, make_noisy_pairs
from training.overlays import OverlayBank
from training.photos import CropConfig, PhotoSet, ResidentPhotos, draw_crops, draw_places, read_photo, to_planes
from training.splits import IMAGE_SUFFIXES, Split, list_images, select_split


@dataclass(frozen=True)
class BatchShape:
    """How many crops of which size; damage, where it is not the source's own, or noise in its place."""

    num_crops: int
    crop_px: int
    damage: DamageConfig | None = None
    noise: NoiseConfig | None = None
    num_uses: int = 1
    """How often each pair is trained on: to make one can take a GPU longer than to learn from it."""


class PairSource(Protocol):
    """Makes pairs, in two parts: what the processor does, and what the training device does with it.

    The pairs of `batches_at_once` batches, a group, are made at once.
    """

    @property
    def batches_at_once(self) -> int: ...

    def draw(self, group: int, shape: BatchShape) -> Tensor:
        """What the device needs, on the CPU: crops, or where they are to be cut."""

    def compose(self, drawn: Tensor, group: int, shape: BatchShape) -> Pairs:
        """drawn: what was drawn for the group, on the device on which the pairs are to be made."""


def make_batch(source: PairSource, step: int, shape: BatchShape, device: torch.device) -> Pairs:
    place = place_of(source, step, shape)
    larger = group_shape(source, shape)
    drawn = source.draw(place.group, larger).to(device)
    return batch_at(place, source.compose(drawn, place.group, larger), shape.num_crops)


@dataclass(frozen=True)
class Place:
    """Where a step's batch is: in which group, at which of its uses, and which batch of that use."""

    group: int
    """Counted as if each were used once, so that no two phases draw the same."""
    use: int
    index: int


def place_of(source: PairSource, step: int, shape: BatchShape) -> Place:
    group, step_in_group = divmod(step, source.batches_at_once * shape.num_uses)
    return Place(group * shape.num_uses, *divmod(step_in_group, source.batches_at_once))


def group_shape(source: PairSource, shape: BatchShape) -> BatchShape:
    return replace(shape, num_crops=source.batches_at_once * shape.num_crops)


def batch_at(place: Place, group: Pairs, num_crops: int) -> Pairs:
    """At each use after the first a group's pairs are held another way, and meet others in their batches."""
    rows: slice | Tensor = slice(place.index * num_crops, (place.index + 1) * num_crops)
    if place.use:
        order = np.random.default_rng([place.group, place.use]).permutation(len(group.mask))
        rows = torch.from_numpy(order[rows]).to(group.mask.device, non_blocking=True)
    return Pairs(**{name: _held(planes[rows], place.use) for name, planes in vars(group).items()})


def _held(planes: Tensor, use: int) -> Tensor:
    """One of the eight orientations of (N, C, T, T), laid out alike: for other strides a network is compiled anew."""
    turned = planes.rot90(use % 4, (2, 3)) if use % 4 else planes
    return (turned.flip(3) if use % 8 >= 4 else turned).contiguous()


def batch_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class DamagedOnTheFly:
    """Clean photographs, damaged as they are drawn."""

    photos: PhotoSet
    bank: OverlayBank
    damage: DamageConfig
    crops: CropConfig
    seed: int
    batches_at_once: int = 1

    def draw(self, group: int, shape: BatchShape) -> Tensor:
        rng = np.random.default_rng(batch_seed(self.seed, group))
        return draw_crops(self.photos.photos, shape.num_crops, shape.crop_px, self.crops, rng)

    def compose(self, drawn: Tensor, group: int, shape: BatchShape) -> Pairs:
        rng = torch.Generator(drawn.device).manual_seed(batch_seed(self.seed, group))
        return damage_crops(to_planes(drawn), shape, self.damage, self.bank.to(drawn.device), rng)


@dataclass(frozen=True)
class DamagedOnDevice:
    """The same on a GPU, where photographs and bank lie in its memory: the processor draws numbers only.

    To launch what composes a batch takes longer than to compute it, so several are made at once.
    """

    photos: ResidentPhotos
    bank: OverlayBank
    damage: DamageConfig
    crops: CropConfig
    seed: int
    batches_at_once: int = 4

    def draw(self, group: int, shape: BatchShape) -> Tensor:
        return draw_places(shape.num_crops, np.random.default_rng(batch_seed(self.seed, group)))

    def compose(self, drawn: Tensor, group: int, shape: BatchShape) -> Pairs:
        rng = torch.Generator(drawn.device).manual_seed(batch_seed(self.seed, group))
        return damage_crops(self.photos.cut(drawn, shape.crop_px, self.crops), shape, self.damage, self.bank, rng)


def damage_crops(
    crops: Tensor, shape: BatchShape, damage: DamageConfig, bank: OverlayBank, rng: torch.Generator
) -> Pairs:
    """crops: (N, 3, H, W) float32 in [0, 1]; damaged, or noisy, as the batch is to be."""
    if shape.noise is not None:
        return make_noisy_pairs(crops, shape.noise, rng)
    return make_pairs(crops, bank, shape.damage or damage, rng)


@dataclass(frozen=True)
class PairedFolders:
    """The HumanFace8000 layout: a folder of damaged and a folder of clean pictures with equal names."""

    stacked: list[np.ndarray]  # (H, W, 6) uint8: damaged, clean
    crops: CropConfig
    seed: int
    batches_at_once: int = 1

    def draw(self, group: int, shape: BatchShape) -> Tensor:
        rng = np.random.default_rng(batch_seed(self.seed, group))
        return draw_crops(self.stacked, shape.num_crops, shape.crop_px, self.crops, rng)

    def compose(self, drawn: Tensor, group: int, shape: BatchShape) -> Pairs:
        both = to_planes(drawn)
        return pairs_from(both[:, :3].contiguous(), both[:, 3:].contiguous())


def load_paired_folders(
    damaged_folder: Path,
    clean_folder: Path,
    split: Split,
    *,
    held_out_share: float,
    short_side_px: int,
    crops: CropConfig,
    seed: int,
) -> PairedFolders:
    """Split by the clean pictures' names, as the evaluation is.

    Raises DataError naming the first files that have no partner, or whose partner has another size.
    """
    damaged, clean = (_by_name(folder) for folder in (damaged_folder, clean_folder))
    if alone := sorted(damaged.keys() ^ clean.keys()):
        raise DataError(
            f"{len(alone)} pictures are in only one of {damaged_folder} and {clean_folder}: {', '.join(alone[:5])}; "
            "every damaged picture needs a clean one of the same name"
        )
    chosen = select_split(clean.values(), clean_folder, split, held_out_share)
    if not chosen:
        raise DataError(f"{damaged_folder} and {clean_folder} hold no pair for {split}")
    stacked = []
    for path in chosen:
        name = _name_of(path, clean_folder)
        pair = [read_photo(damaged[name], short_side_px), read_photo(path, short_side_px)]
        if pair[0].shape != pair[1].shape:
            raise DataError(
                f"the pair {name} has sizes {pair[0].shape[:2]} and {pair[1].shape[:2]}; they must be equal"
            )
        stacked.append(np.concatenate(pair, axis=2))
    return PairedFolders(stacked, crops, seed)


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    paths = list_images(folder)
    if not paths:
        raise DataError(f"{folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    by_name = {_name_of(path, folder): path for path in paths}
    if len(by_name) < len(paths):
        first = next(path for path in paths if path not in by_name.values())
        raise DataError(f"{folder} holds several pictures that differ in their suffix alone, {first.name} is one")
    return by_name


def _name_of(path: Path, folder: Path) -> str:
    """A damaged picture may be a PNG and the clean one a JPEG."""
    return path.relative_to(folder).with_suffix("").as_posix()


class _Steps(Dataset[Pairs]):
    """Steps as a data set, for worker processes: item `step` is that step's batch, made on the CPU."""

    def __init__(self, source: PairSource, shape: BatchShape) -> None:
        self.source = source
        self.shape = shape

    def __getitem__(self, step: int) -> Pairs:
        return make_batch(self.source, step, self.shape, torch.device("cpu"))


def iterate_batches(
    source: PairSource, steps: Sequence[int], shape: BatchShape, device: torch.device, num_workers: int
) -> Iterator[Pairs]:
    """The batches of these steps, in order; made on the device itself, or ahead of need by worker processes.

    On a GPU they are made ahead of need in either case: there in a stream of its own, beside the step under way.
    """
    if num_workers == 0 and device.type == "cuda":
        yield from _composed_ahead(source, steps, shape, device)
        return
    if num_workers == 0:
        for step in steps:
            yield make_batch(source, step, shape, device)
        return
    # `batch_size=None`: an item is a batch already. A random stream of its own: a loader seeds its workers from the
    # global one otherwise, which a resumed run would then find moved on
    loader = DataLoader(
        _Steps(source, shape),
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    for pairs in loader:
        yield pairs.to(device)


DRAWING_THREADS = 4
DRAWN_AHEAD = 8
COMPOSED_AHEAD = 1
"""Groups that wait; another is under way."""


def _composed_ahead(
    source: PairSource, steps: Sequence[int], shape: BatchShape, device: torch.device
) -> Iterator[Pairs]:
    if not steps:
        return
    places = (place_of(source, step, shape) for step in steps)
    first, last = (place_of(source, step, shape).group for step in (steps[0], steps[-1]))
    with _GroupsAhead(source, range(first, last + 1, shape.num_uses), group_shape(source, shape), device) as ahead:
        for _, of_group in groupby(places, key=lambda place: place.group):
            pairs = ahead.take()
            for place in of_group:
                yield batch_at(place, pairs, shape.num_crops)


class _GroupsAhead:
    """Groups are drawn in threads, which OpenCV lets run at once, and composed in one more, in its own stream: what it
    waits for is then its own work, and not that of the training step."""

    def __init__(self, source: PairSource, groups: Sequence[int], shape: BatchShape, device: torch.device) -> None:
        """shape: of a whole group."""
        self._source = source
        self._groups = groups
        self._shape = shape
        self._device = device
        self._composed: Queue[tuple[Pairs, torch.cuda.Event] | BaseException] = Queue(COMPOSED_AHEAD)
        self._is_over = threading.Event()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._thread = threading.Thread(target=self._compose_all, name="pairs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def take(self) -> Pairs:
        """The next group, for the stream under way; waits until it is composed. Raises what that failed with."""
        item = self._composed.get()
        if isinstance(item, BaseException):
            raise item
        pairs, is_made = item
        current = torch.cuda.current_stream(self._device)
        current.wait_event(is_made)
        for planes in vars(pairs).values():
            planes.record_stream(current)
        return pairs

    def _compose_all(self) -> None:
        try:
            for group, drawn in zip(self._groups, self._drawn(), strict=False):
                with torch.cuda.stream(self._stream):
                    placed = drawn.pin_memory().to(self._device, non_blocking=True)
                    pairs = self._source.compose(placed, group, self._shape)
                    self._put((pairs, self._stream.record_event()))
        except BaseException as error:  # whatever it is, the trainer must hear of it, which waits for ever otherwise
            self._put(error)

    def _put(self, item: tuple[Pairs, torch.cuda.Event] | BaseException) -> None:
        while not self._is_over.is_set():
            with suppress(Full):
                self._composed.put(item, timeout=0.1)
                return

    def _drawn(self) -> Iterator[Tensor]:
        """In order; ends early when nobody waits any more."""
        with ThreadPoolExecutor(DRAWING_THREADS, "crops") as pool:
            ahead: deque[Future[Tensor]] = deque()
            for group in self._groups:
                if self._is_over.is_set():
                    return
                ahead.append(pool.submit(self._source.draw, group, self._shape))
                if len(ahead) >= DRAWN_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that died of it would break off the checkpoint being written.

    Workers end with the trainer.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
