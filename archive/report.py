"""What a curator looks at: a page with the most damaged photographs before and after, a table of all, a manifest."""

import base64
import csv
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image, ImageOps

from archive.bag import write_bag_files
from archive.journal import COLUMNS, Collection, Journal, Record
from archive.outputs import damage_map_path
from archive.trees import Tree, open_tree
from restoration.errors import PhotoError
from restoration.photo import Photo, decode_photo
from restoration.photo_colours import Bytes

THUMBNAIL_PX = 320
MOST_FAILURES_SHOWN = 200
NUM_AT_ONCE = 4
CHANGED_LEVELS = 8  # a JPEG that is encoded anew changes by less nearly everywhere
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Shown:
    """A photo of the page; thumbnails are data URIs, or empty: a file missing or unreadable, or not to be shown."""

    record: Record
    before: str
    after: str = ""
    damage: str = ""


def write_report(journal: Journal, collection: Collection, folder: Path, most_shown: int) -> list[str]:
    """index.html, photos.csv and the files of a bag, into a folder that is made if there is none.

    Returns the paths that a bag cannot hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "photos.csv", journal.records())
    left_out = write_bag_files(folder, journal.records("done"), datetime.now(UTC).date())
    with (folder / "index.html").open("w", encoding="utf-8", errors="backslashreplace") as page:
        page.writelines(render_page(journal, collection, most_shown))
    return left_out


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
        failures=list(islice(journal.records("failed"), MOST_FAILURES_SHOWN)),
        photos=show_photos(journal.most_damaged(most_shown), collection),
        suspected=show_before(journal.most_suspected(most_shown), open_tree(collection.source)),
        thumbnail_px=THUMBNAIL_PX,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def show_photos(records: list[Record], collection: Collection) -> Iterator[Shown]:
    source, destination = open_tree(collection.source), open_tree(collection.destination)
    damage_maps = open_tree(collection.damage_maps) if collection.damage_maps else None
    with ThreadPoolExecutor(NUM_AT_ONCE, "thumbnail") as threads:
        yield from threads.map(lambda record: show_photo(record, source, destination, damage_maps), records)


def show_photo(record: Record, source: Tree, destination: Tree, damage_maps: Tree | None) -> Shown:
    """The map of the run where it kept one, else where the two differ."""
    before, after = open_photo(source, record.path), open_photo(destination, record.path)
    damage = None
    if damage_maps is not None and record.damage_map_sha256 is not None:
        damage_map = open_photo(damage_maps, damage_map_path(record.path))
        damage = damage_map.colour() if damage_map else None
    elif before and after:
        damage = draw_changes(before.colour(), after.colour())
    orientation = before.metadata.orientation if before else 1
    pictures = (before.colour() if before else None, after.colour() if after else None, damage)
    return Shown(record, *(to_data_uri(picture, orientation) for picture in pictures))


def show_before(records: list[Record], source: Tree) -> Iterator[Shown]:
    """Of photos in which nothing was restored."""

    def show(record: Record) -> Shown:
        photo = open_photo(source, record.path)
        return Shown(record, to_data_uri(photo.colour(), photo.metadata.orientation) if photo else "")

    with ThreadPoolExecutor(NUM_AT_ONCE, "thumbnail") as threads:
        yield from threads.map(show, records)


def open_photo(tree: Tree, path: str) -> Photo | None:
    """None for what is missing, or is no photo any more: the page shows the others."""
    try:
        return decode_photo(tree.read(path))
    except (OSError, PhotoError):
        return None


def draw_changes(before: Bytes, after: Bytes) -> Bytes | None:
    """(H, W, 3) each; returns (H, W), white where a restored sample is not the old one, by more than an encoder's
    doing. None if they are not of one size."""
    if before.shape != after.shape:
        return None
    changed = np.zeros(before.shape[:2], bool)
    for channel in range(3):  # one at a time: a scan is large
        old, new = (picture[:, :, channel].astype(np.int16) for picture in (before, after))
        changed |= np.abs(old - new) > CHANGED_LEVELS
    return np.where(changed, np.uint8(255), np.uint8(0))


def to_data_uri(picture: Bytes | None, orientation: int) -> str:
    """A small JPEG, turned as the photo's orientation tag has it."""
    if picture is None:
        return ""
    thumbnail = Image.fromarray(picture)
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    thumbnail.getexif()[ORIENTATION_TAG] = orientation
    thumbnail = ImageOps.exif_transpose(thumbnail)
    encoded = io.BytesIO()
    thumbnail.save(encoded, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
