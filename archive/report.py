"""What a curator looks at: a page with the most damaged photographs before and after, a table of all, a manifest."""

import base64
import csv
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image, ImageOps

from archive.bag import write_bag_files
from archive.journal import COLUMNS, Collection, Journal, Record
from archive.run import damage_map_path
from archive.trees import Tree, open_tree

THUMBNAIL_PX = 320
MOST_FAILURES_SHOWN = 200
NUM_AT_ONCE = 4
CHANGED_LEVELS = 8  # a JPEG that is encoded anew changes by less nearly everywhere
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Shown:
    """A photo of the page; thumbnails are data URIs, or empty where a file is missing or unreadable."""

    record: Record
    before: str
    after: str
    damage: str


def write_report(journal: Journal, collection: Collection, folder: Path, most_shown: int) -> None:
    """index.html, photos.csv and the files of a bag, into a folder that is made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "photos.csv", journal.records())
    write_bag_files(folder, journal.records("done"), datetime.now(UTC).date())
    with (folder / "index.html").open("w", encoding="utf-8", errors="backslashreplace") as page:
        page.writelines(render_page(journal, collection, most_shown))


def write_table(path: Path, records: Iterable[Record]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for record in records:
            table.writerow(getattr(record, column) for column in COLUMNS)


def render_page(journal: Journal, collection: Collection, most_shown: int) -> Iterator[str]:
    """In pieces: a page with many thumbnails is large."""
    templates = Environment(loader=PackageLoader("archive", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    yield from templates.get_template("report.html").generate(
        collection=collection,
        counts=journal.count(),
        totals=journal.totals(),
        reasons=journal.count_failures(),
        failures=first(journal.records("failed"), MOST_FAILURES_SHOWN),
        photos=show_photos(journal.most_damaged(most_shown), collection),
        thumbnail_px=THUMBNAIL_PX,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def first(records: Iterator[Record], most: int) -> list[Record]:
    return [record for record, _ in zip(records, range(most), strict=False)]


def show_photos(records: list[Record], collection: Collection) -> Iterator[Shown]:
    source, destination = open_tree(collection.source), open_tree(collection.destination)
    damage_maps = open_tree(collection.damage_maps) if collection.damage_maps else None
    with ThreadPoolExecutor(NUM_AT_ONCE, "thumbnail") as threads:
        yield from threads.map(lambda record: show_photo(record, source, destination, damage_maps), records)


def show_photo(record: Record, source: Tree, destination: Tree, damage_maps: Tree | None) -> Shown:
    """The map of the run where it kept one, else where the two differ."""
    before, after = open_picture(source, record.path), open_picture(destination, record.path)
    damage = None
    if damage_maps is not None and record.damage_map_sha256 is not None:
        damage = open_picture(damage_maps, damage_map_path(record.path))
    elif before is not None and after is not None:
        damage = draw_changes(before, after)
    orientation = before.getexif().get(ORIENTATION_TAG, 1) if before is not None else 1
    return Shown(record, *(to_data_uri(picture, orientation) for picture in (before, after, damage)))


def open_picture(tree: Tree, path: str) -> Image.Image | None:
    """None for what is missing, or is no picture any more: the page shows the others."""
    try:
        picture = Image.open(io.BytesIO(tree.read(path)))
        picture.load()
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return picture


def draw_changes(before: Image.Image, after: Image.Image) -> Image.Image | None:
    """White where a restored sample is not the old one, by more than an encoder's doing. Grey, of the photos' size."""
    if before.size != after.size:
        return None
    changed = np.zeros((before.height, before.width), bool)
    for channel in range(3):  # one at a time: a scan is large
        old, new = (np.asarray(picture.convert("RGB").getchannel(channel), np.int16) for picture in (before, after))
        changed |= np.abs(old - new) > CHANGED_LEVELS
    return Image.fromarray(changed)


def to_data_uri(picture: Image.Image | None, orientation: int) -> str:
    """A small JPEG, turned as the photo's orientation tag has it."""
    if picture is None:
        return ""
    thumbnail = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    thumbnail.getexif()[ORIENTATION_TAG] = orientation
    thumbnail = ImageOps.exif_transpose(thumbnail)
    encoded = io.BytesIO()
    thumbnail.save(encoded, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
