"""The entity tag of an answer, known before any inference: whoever holds the answer need not have it made again.

A photo, the masks, the options, the release, the code and the device's arithmetic decide every byte of an answer
(RFC 9110, sections 8.8.3 and 13.1.2).
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from restoration.restorer import Restorer
from service.answers import RestoreQuery
from service.errors import AlreadyHeld
from service.uploads import Upload

PACKAGES = ("restoration", "service")
LIBRARIES = ("torch", "numpy", "scipy", "pillow", "tifffile", "imagecodecs", "jpeglib")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def etag_of(upload: Upload, query: RestoreQuery, restorer: Restorer) -> str:
    """A strong entity tag, quoted as the header has it."""
    release = restorer.release.manifest.model_dump_json(include={"version", "config", "files"})
    options = query.model_dump_json(exclude={"release"})  # which release it is asked of does not change the answer
    parts = (upload.image, upload.damage or b"", upload.protect or b"", options.encode(), release.encode())
    return f'"{_digest([*parts, restorer.generator.arithmetic.encode(), code_fingerprint().encode()])}"'


def expect_not_held(if_none_match: Iterable[str], etag: str) -> None:
    """if_none_match: the header's values. Raises AlreadyHeld if one of their tags is the answer's.

    `*` names no answer: it would refuse every restoration.
    """
    held = {tag for value in if_none_match for tag in _TAG.findall(value)}
    if etag.strip('"') in held:
        raise AlreadyHeld(etag)


@cache
def code_fingerprint() -> str:
    """Of the sources, not of a version number: answers change with any commit."""
    root = Path(__file__).resolve().parent.parent
    sources = [path.read_bytes() for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return _digest([*sources, *(f"{library} {version(library)}".encode() for library in LIBRARIES)])


def _digest(parts: Iterable[bytes]) -> str:
    """SHA-256 over the parts and where one ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
