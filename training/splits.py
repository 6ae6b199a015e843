"""Which file belongs to training and which is held out: by name, so that neither order nor other files matter."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Split = Literal["train", "evaluation"]
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})


def split_of(name: str, held_out_share: float) -> Split:
    """name: the file's path inside its folder, with forward slashes; held_out_share in [0, 1]."""
    digest = hashlib.sha256(name.encode()).digest()
    return "evaluation" if int.from_bytes(digest[:8], "big") < held_out_share * 2**64 else "train"


def list_images(folder: Path) -> list[Path]:
    """All images below the folder, sorted, hidden files and folders left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def select_split(paths: Iterable[Path], folder: Path, split: Split, held_out_share: float) -> list[Path]:
    return [path for path in paths if split_of(path.relative_to(folder).as_posix(), held_out_share) == split]
