"""A collection of photographs to restore: of several sizes and formats, damaged, some of them broken, in boxes."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from PIL import Image, ImageDraw

SIDES_PX = (64, 96, 128, 160, 192, 256)
LARGE_MEGAPIXELS = (1, 2, 3, 4)
FORMATS = (("jpg", "JPEG"), ("jpg", "JPEG"), ("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"))
BROKEN_EVERY = 100
LARGE_EVERY = 250
SOURCE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Collection:
    """boxes: its folders; good, broken: the names of its files, each of which is there once."""

    boxes: list[Path]
    good: frozenset[str]
    broken: frozenset[str]

    @property
    def folder(self) -> Path:
        return self.boxes[0].parent


def make_collection(
    photos: Path, folder: Path, num: int, num_boxes: int, *, sides_px: Sequence[int] = SIDES_PX, with_large: bool = True
) -> Collection:
    """From the photographs below `photos`, the same each time; what is there already stays. In each box, one of a
    hundred is broken, and of 250 one is large."""
    sources = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SOURCE_SUFFIXES)
    boxes = [folder / f"box {number}" for number in range(num_boxes)]
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for box in boxes:
        box.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        place = index // num_boxes
        suffix, format = FORMATS[index % len(FORMATS)]
        is_broken = place % BROKEN_EVERY == BROKEN_EVERY - 1
        is_large = with_large and place % LARGE_EVERY == LARGE_EVERY // 2
        path = boxes[index % num_boxes] / f"{index:05}.{suffix}"
        names[is_broken].add(path.name)
        if not path.exists():
            rng = random.Random(index)
            photo = resize(rng.choice(sources), rng, sides_px, is_large=is_large)
            encoded = encode(scratch(photo, rng), format)
            path.write_bytes(break_up(encoded, rng) if is_broken else encoded)
    return Collection(boxes, frozenset(names[False]), frozenset(names[True]))


def resize(source: Path, rng: random.Random, sides_px: Sequence[int], *, is_large: bool) -> Image.Image:
    """One in five grey. Large ones are enlarged: it is their size that matters here."""
    with Image.open(source) as opened:
        photo = opened.convert("L" if rng.random() < 0.2 else "RGB")
    if is_large:
        factor = sqrt(1e6 * rng.choice(LARGE_MEGAPIXELS) / (photo.width * photo.height))
        return photo.resize((round(factor * photo.width), round(factor * photo.height)))
    side_px = rng.choice(sides_px)
    photo.thumbnail((side_px, side_px))
    return photo


def scratch(photo: Image.Image, rng: random.Random) -> Image.Image:
    """One in eight gets none."""
    draw = ImageDraw.Draw(photo)
    light = 240 if photo.mode == "L" else (245, 242, 235)
    for _ in range(rng.randrange(1, 5) if rng.random() < 0.875 else 0):
        ends = [(rng.uniform(0, photo.width), rng.uniform(0, photo.height)) for _ in range(2)]
        draw.line(ends, fill=light, width=max(1, max(photo.size) // 100))
    return photo


def encode(photo: Image.Image, format: str) -> bytes:
    encoded = io.BytesIO()
    photo.save(encoded, format, quality=90)
    return encoded.getvalue()


def break_up(encoded: bytes, rng: random.Random) -> bytes:
    """Cut short, empty, or no photo at all."""
    cut = [encoded[: len(encoded) // parts] for parts in (2, 3, 50)]
    return rng.choice([*cut, b"", b"Box 3 is missing since the flood of 1954.\n"])
