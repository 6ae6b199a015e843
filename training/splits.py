"""Which file belongs to training and which is held out: by name, so that neither order nor other files matter."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Split = Literal["train", "evaluation"]
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})


def split_of(name: str, held_out_share: float) -> Split:
    """name: the file's path inside its folder, with forward slashes; held_out_share in [0, 1]."""
    return "evaluation" if _digest(name) < held_out_share * 2**64 else "train"


def _digest(name: str) -> int:
    """Uniform in [0, 2**64)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def list_images(folder: Path) -> list[Path]:
    """All images below the folder, sorted, hidden files and folders left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def select_split(paths: Iterable[Path], folder: Path, split: Split, held_out_share: float) -> list[Path]:
    """The paths of one split. Of at least two, one is always held out: the one whose digest is lowest."""
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    held_out = {path for path, name in names.items() if split_of(name, held_out_share) == "evaluation"}
    if not held_out and held_out_share > 0 and len(names) > 1:
        held_out = {min(names, key=lambda path: _digest(names[path]))}
    return [path for path in names if (path in held_out) == (split == "evaluation")]
