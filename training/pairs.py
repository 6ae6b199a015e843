"""Where a step's pairs come from: clean photographs damaged on the fly, or two folders with equal names.

A source makes any step's batch from (seed, step) alone. So a resumed run goes on exactly, worker processes may make
batches ahead, and an error can name the batch that caused it.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from restoration.errors import DataError
from training.damage import DamageConfig, Pairs, make_pairs, pairs_from
from training.noise import NoiseConfig, make_noisy_pairs
from training.overlays import OverlayBank
from training.photos import CropConfig, PhotoSet, read_photo, sample_crop, sample_crops
from training.splits import IMAGE_SUFFIXES, Split, list_images, select_split


@dataclass(frozen=True)
class BatchShape:
    """How many crops of which size; damage, where it is not the source's own, or noise in its place."""

    num_crops: int
    crop_px: int
    damage: DamageConfig | None = None
    noise: NoiseConfig | None = None


class PairSource(Protocol):
    """Makes batches of pairs."""

    def make_batch(self, step: int, shape: BatchShape, device: torch.device) -> Pairs: ...


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

    def make_batch(self, step: int, shape: BatchShape, device: torch.device) -> Pairs:
        seed = batch_seed(self.seed, step)
        crops = sample_crops(
            self.photos.photos, shape.num_crops, shape.crop_px, self.crops, np.random.default_rng(seed)
        )
        rng = torch.Generator(device).manual_seed(seed)
        if shape.noise is not None:
            return make_noisy_pairs(crops.to(device), shape.noise, rng)
        return make_pairs(crops.to(device), self.bank.to(device), shape.damage or self.damage, rng)


@dataclass(frozen=True)
class PairedFolders:
    """The HumanFace8000 layout: a folder of damaged and a folder of clean pictures with equal names."""

    stacked: list[np.ndarray]  # (H, W, 6) uint8: damaged, clean
    crops: CropConfig
    seed: int

    def make_batch(self, step: int, shape: BatchShape, device: torch.device) -> Pairs:
        rng = np.random.default_rng(batch_seed(self.seed, step))
        chosen = rng.integers(len(self.stacked), size=shape.num_crops)
        crops = np.stack([sample_crop(self.stacked[index], shape.crop_px, self.crops, rng) for index in chosen])
        both = torch.from_numpy(crops).permute(0, 3, 1, 2).to(device).float().div_(255.0)
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
        return self.source.make_batch(step, self.shape, torch.device("cpu"))


def iterate_batches(
    source: PairSource, steps: Sequence[int], shape: BatchShape, device: torch.device, num_workers: int
) -> Iterator[Pairs]:
    """The batches of these steps, in order; made on the device itself, or ahead of need by worker processes."""
    if num_workers == 0:
        for step in steps:
            yield source.make_batch(step, shape, device)
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


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that died of it would break off the checkpoint being written.

    Workers end with the trainer.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
