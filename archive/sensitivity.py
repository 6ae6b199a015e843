"""Which sensitivity suits a collection: how many of its undamaged photographs each one would alter.

A release is calibrated on photographs like those that it was trained on. What is on others may look more like damage.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from archive.errors import PhotoFailed, RunStopped
from archive.run import read_photo, unforeseen
from archive.trees import Entry, Tree
from archive.ways import Options, Way

SENSITIVITIES = tuple(tenth / 10 for tenth in range(11))
LEAST = Options(sensitivity=SENSITIVITIES[0])
"""How photos are restored to see from which sensitivity on they are altered: what is not altered says so."""
NEVER = math.inf


@dataclass(frozen=True)
class Reaction:
    """altered_from: the least of `SENSITIVITIES` that alters the photo, `NEVER` if none does, NaN after a failure."""

    path: str
    altered_from: float
    failure: PhotoFailed | None = None


def ask_about(way: Way, tree: Tree, entries: Iterable[Entry], max_bytes: int) -> Iterator[Reaction]:
    """In the order of the entries. way: with `LEAST`. Raises RunStopped if no further photo can be asked about."""
    threads = ThreadPoolExecutor(way.num_at_once, "photo")
    try:
        yield from threads.map(lambda entry: _ask(way, tree, entry, max_bytes), entries)
    finally:
        threads.shutdown(cancel_futures=True)


def _ask(way: Way, tree: Tree, entry: Entry, max_bytes: int) -> Reaction:
    try:
        restored = way.restore(read_photo(tree, entry, max_bytes))
    except PhotoFailed as error:
        return Reaction(entry.path, math.nan, error)
    except RunStopped:
        raise
    except Exception as error:
        return Reaction(entry.path, math.nan, unforeseen(error))
    if restored.damage_ratio > 0.0:
        return Reaction(entry.path, LEAST.sensitivity)
    return Reaction(entry.path, NEVER if restored.suspected_from is None else restored.suspected_from)


def count_altered(altered_from: Sequence[float], sensitivity: float) -> int:
    return sum(least <= sensitivity for least in altered_from)


def choose_sensitivity(altered_from: Sequence[float], unchanged_share: float) -> float | None:
    """The highest of `SENSITIVITIES` with which at least that share of the photos stays as it is; None if with none."""
    most_altered = math.floor((1.0 - unchanged_share) * len(altered_from) + 1e-9)  # 5 % of 20 are 1, not 0.999...
    return max((each for each in SENSITIVITIES if count_altered(altered_from, each) <= most_altered), default=None)
