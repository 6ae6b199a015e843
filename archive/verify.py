"""Every output against the journal: is it there, and is it what was written?"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from archive.journal import Journal, Record
from archive.outputs import damage_map_path, explain, sha256_of
from archive.trees import Tree

NUM_AT_ONCE = 8


@dataclass(frozen=True)
class Difference:
    """path: of the photo; found: in words."""

    path: str
    found: str


def verify(journal: Journal, destination: Tree, damage_maps: Tree | None) -> Iterator[Difference | None]:
    """For each photo that is done, by path: None, or what is not as it should be. Holds a few photos at a time."""
    waiting: deque[Future[Difference | None]] = deque()
    with ThreadPoolExecutor(NUM_AT_ONCE, "verify") as threads:
        for record in journal.records("done"):
            waiting.append(threads.submit(_check, record, destination, damage_maps))
            if len(waiting) > 2 * NUM_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _check(record: Record, destination: Tree, damage_maps: Tree | None) -> Difference | None:
    found = record.output_sha256 and _compare(destination, record.path, record.output_sha256)
    if not found and damage_maps is not None and record.damage_map_sha256:
        found = _compare(damage_maps, damage_map_path(record.path), record.damage_map_sha256)
        found = found and f"its damage map {found}"
    return Difference(record.path, found) if found else None


def _compare(tree: Tree, path: str, sha256: str) -> str | None:
    try:
        content = tree.read(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {explain(error)}"
    found = sha256_of(content)
    return None if found == sha256 else f"has sha256 {found[:8]}.., but {sha256[:8]}.. was written"
