"""A BagIt manifest (RFC 8493) of the outputs, so that archives can check and take them over with their own tools.

The outputs are the bag's payload, `data/`: restore into `bag/data`, write the report into `bag`, and that is a bag.
"""

import hashlib
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from archive.journal import Record

DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
PAYLOAD_MANIFEST = "manifest-sha256.txt"


def write_bag_files(folder: Path, records: Iterable[Record], bagging_date: date) -> list[str]:
    """records: those that are done. Writes the declaration, the payload's manifest, and what is said about both.

    Returns the paths of outputs that no manifest can name: they are left out.
    """
    num_files = num_bytes = 0
    left_out = []
    with (folder / PAYLOAD_MANIFEST).open("w", encoding="utf-8", newline="\n") as manifest:
        for record in records:
            if record.output_sha256 is None or record.output_bytes is None:
                continue
            if not fits_manifest(record.path):
                left_out.append(record.path)
            else:
                manifest.write(f"{record.output_sha256}  data/{encode_path(record.path)}\n")
                num_files += 1
                num_bytes += record.output_bytes
    about = f"Bagging-Date: {bagging_date.isoformat()}\nPayload-Oxum: {num_bytes}.{num_files}\n"
    _write(folder / "bagit.txt", DECLARATION)
    _write(folder / "bag-info.txt", about)
    tags = (folder / name for name in ("bag-info.txt", "bagit.txt", PAYLOAD_MANIFEST))
    _write(folder / "tagmanifest-sha256.txt", "".join(f"{sha256_of_file(tag)}  {tag.name}\n" for tag in tags))
    return left_out


def fits_manifest(path: str) -> bool:
    """Whether it is UTF-8 and, encoded, one line to bagit.py, which ends lines where Python does and strips them."""
    encoded = encode_path(path)
    is_utf_8 = not any("\ud800" <= character <= "\udfff" for character in path)
    return is_utf_8 and encoded.splitlines() == [encoded.rstrip()]


def encode_path(path: str) -> str:
    """The characters that would break a line of the manifest, and the one that escapes them."""
    return path.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
