"""The bank of damage: every overlay that composition draws from, rendered once and kept in memory.

An overlay is two planes: *opacity*, how much of the photo it hides, and *tone*, where between its two colours it lies.
Sizes are relative to the overlay's side, which stands for the short side of a photo. Procedural families are drawn
in `training.drawing`; others come from a folder of greyscale images (white is damage), by the name of their subfolder.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restoration.errors import DataError
from training.brushes import soft_noise, to_levels
from training.drawing import IN_BANK, draw_in_processes, draw_overlays
from training.splits import list_images, select_split

FAMILY_OF_FOLDER = {
    "dirt": "dust",
    "spots": "dust",
    "sprinkles": "dust",
    "hair": "fibres",
    "hair-short": "fibres",
    "lint": "fibres",
    "scratches": "scratches",
    "stain": "stains",
    "dots": "strokes",
    "smut": "holes",
    "paper": None,  # whole sheets of texture, no overlays
}
"""Which family an overlay folder feeds; a folder that is not named here feeds `dust`."""

STREAM_OF = {"train": 0, "evaluation": 1}
WORTH_WORKERS_PX = 20_000_000
"""A bank of so many pixels takes over a second to draw, twice as long as processes take to begin."""


@dataclass(frozen=True)
class OverlayBank:
    """Per family (K, 2, S, S) uint8: opacity and tone."""

    overlays: dict[str, Tensor]

    def to(self, device: torch.device) -> "OverlayBank":
        return OverlayBank({family: planes.to(device) for family, planes in self.overlays.items()})


def build_bank(
    split: Literal["train", "evaluation"],
    *,
    overlay_folder: Path | None = None,
    held_out_share: float = 0.1,
    families: tuple[str, ...] = IN_BANK,
    side_px: int = 320,
    num_per_family: int = 160,
    seed: int = 0,
    num_workers: int | None = None,
) -> OverlayBank:
    """Render the bank for training, or for the evaluation: from all overlay files that are held out.

    The two share neither a file nor a random stream. Each overlay has a stream of its own, so the bank is the same
    whatever the number of workers: by default one for each processor, none where the bank is small.

    Raises DataError if the overlay folder holds no image, or one that cannot be read.
    """
    paths = _choose_files(overlay_folder, split, held_out_share, families, num_per_family, seed)
    keys = {family: [seed, STREAM_OF[split], IN_BANK.index(family)] for family in families}
    orders = [(family, (*keys[family], 0, index)) for family in families for index in range(num_per_family)]
    files = [
        (family, path, side_px, np.random.default_rng((*keys[family], 1, index)))
        for family in families
        for index, path in enumerate(paths[family])
    ]
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if len(orders) * side_px**2 > WORTH_WORKERS_PX else 1
    with ThreadPoolExecutor(num_workers) as pool:  # decoding and resizing run beside each other in threads, too
        read = list(pool.map(lambda file: read_overlay(*file), files))
    drawn = draw_in_processes(orders, side_px, num_workers) if num_workers > 1 else draw_overlays(orders, side_px)
    overlays = {}
    for family in families:
        of_files, read = read[: len(paths[family])], read[len(paths[family]) :]
        of_orders, drawn = drawn[:num_per_family], drawn[num_per_family:]
        overlays[family] = torch.from_numpy(np.stack([*of_orders, *of_files]))
    return OverlayBank(overlays)


def _choose_files(
    folder: Path | None,
    split: Literal["train", "evaluation"],
    held_out_share: float,
    families: tuple[str, ...],
    num_most: int,
    seed: int,
) -> dict[str, list[Path]]:
    """Of each family at most so many of the split's files."""
    if folder is None:
        return {family: [] for family in families}
    everything = list_images(folder)
    if not everything:
        raise DataError(f"{folder} is not a folder that holds damage overlays; name one, or leave overlays out")
    train = set(select_split(everything, folder, "train", held_out_share))
    chosen = {}
    for family in families:
        paths = [path for path in everything if (path in train) == (split == "train")]
        paths = [path for path in paths if FAMILY_OF_FOLDER.get(path.parent.name, "dust") == family]
        order = np.random.default_rng([seed, STREAM_OF[split], IN_BANK.index(family)]).permutation(len(paths))
        chosen[family] = [paths[index] for index in order[:num_most]]
    return chosen


def read_overlay(family: str, path: Path, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(2, S, S) uint8 from a greyscale image whose white is damage. Raises DataError if it cannot be read."""
    least_tone = 0.0 if family == "stains" and rng.random() < 0.75 else 0.6  # most stains darken, few bleach
    try:
        with Image.open(path) as image:
            opacity = np.asarray(image.convert("L").resize((side_px, side_px), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an overlay ({error}); repair it or take it out") from error
    return np.stack([opacity, to_levels(least_tone + 0.4 * soft_noise(side_px, 0.1, rng))])
