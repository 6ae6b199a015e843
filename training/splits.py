"""Which file belongs to training and which is held out: by name, so that neither order nor other files matter."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "evaluation"]
"""Half of what is held out chooses settings (validation), the other half measures (evaluation)."""
HELD_OUT: tuple[Split, ...] = ("validation", "evaluation")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})


def split_of(name: str, held_out_share: float) -> Split:
    """name: the file's path inside its folder, with forward slashes; held_out_share in [0, 1]."""
    place, is_validation = _digest(name)
    if place >= held_out_share:
        return "train"
    return "validation" if is_validation else "evaluation"


def _digest(name: str) -> tuple[float, bool]:
    """A number that is uniform in [0, 1), and a bit."""
    digest = hashlib.sha256(bytes_of(name)).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, digest[8] % 2 == 1


def bytes_of(name: str) -> bytes:
    """As the file system has them: a name need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def list_images(folder: Path) -> list[Path]:
    """All images below the folder, sorted, hidden files and folders left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def select_split(paths: Iterable[Path], folder: Path, split: Split, held_out_share: float) -> list[Path]:
    """The paths of one split. Of at least two, one is always there to measure on: the one whose digest is lowest."""
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    splits = {path: split_of(name, held_out_share) for path, name in names.items()}
    if "evaluation" not in splits.values() and held_out_share > 0 and len(names) > 1:
        splits[min(names, key=lambda path: _digest(names[path]))] = "evaluation"
    return [path for path in names if splits[path] == split]
