"""Trees of files, on a disk or wherever fsspec reaches (`s3://...`): listed without holding the list, written whole or
not at all.

Paths are relative to the tree's root and separated by `/`. A name that is no UTF-8 is carried as Python carries it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from archive.errors import CollectionError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".jp2", ".j2k", ".j2c", ".jpx")
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs"}
"""Protocols whose stores show an object when all of it has arrived, and never a part of it. They know no renaming."""

OnUnreadable = Callable[[str, OSError], None]
"""Told of a file that could not be looked at, or of a folder (with a slash at its end) that could not be listed, and
why; the listing goes on."""


@dataclass(frozen=True)
class Entry:
    """A file of a tree. stamp: changes when the file does."""

    path: str
    num_bytes: int
    stamp: str


@dataclass(frozen=True)
class Selection:
    """Which files of a tree are meant: by default photographs, by their names' endings. Hidden files never are.

    A pattern without a slash is held against the file's name, another against its path; `*` stands for anything,
    slashes too. Capitals do not matter.
    """

    include: tuple[str, ...] = tuple(f"*{suffix}" for suffix in PHOTO_SUFFIXES)
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        if any(part.startswith(".") for part in path.split("/")):
            return False
        return _matches_any(path, self.include) and not _matches_any(path, self.exclude)


def _matches_any(path: str, patterns: tuple[str, ...]) -> bool:
    lower = path.lower()
    name = lower.rpartition("/")[2]
    return any(fnmatchcase(lower if "/" in pattern else name, pattern.lower()) for pattern in patterns)


class Tree:
    """A tree on any file system of fsspec."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self.root = root.rstrip("/")

    @property
    def address(self) -> str:
        """As `open_tree` takes it."""
        return str(self._files.unstrip_protocol(self.root))

    @property
    def is_local(self) -> bool:
        return False

    def entries(self, on_unreadable: OnUnreadable) -> Iterator[Entry]:
        """Every file, in no order. Holds the listing of one folder at a time."""

        def note(error: OSError) -> None:
            on_unreadable("/", error)  # which folder it is, fsspec does not say

        for folder, _, files in self._files.walk(self.root, detail=True, on_error=note):
            for name, facts in files.items():
                yield Entry(f"{folder}/{name}".removeprefix(f"{self.root}/"), int(facts["size"]), _stamp(facts))

    def read(self, path: str) -> bytes:
        content: bytes = self._files.cat_file(self._full(path))
        return content

    def num_bytes(self, path: str) -> int | None:
        """None if there is no such file."""
        try:
            return int(self._files.info(self._full(path))["size"])
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Whoever looks sees the old file or the new one, unless the file system can neither rename nor put a file in
        one piece. Raises OSError."""
        full = self._full(path)
        self._files.makedirs(full.rpartition("/")[0], exist_ok=True)
        if OBJECT_STORES & _protocols(self._files) or type(self._files).mv is AbstractFileSystem.mv:
            self._files.pipe_file(full, content)
        else:
            beside = _beside(full)
            self._files.pipe_file(beside, content)
            self._files.mv(beside, full)

    def remove(self, path: str) -> None:
        """Raises OSError."""
        self._files.rm_file(self._full(path))

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"


class LocalTree(Tree):
    """A folder on a disk: listed entry by entry, written through to the disk."""

    @property
    def address(self) -> str:
        return self.root

    @property
    def is_local(self) -> bool:
        return True

    def entries(self, on_unreadable: OnUnreadable) -> Iterator[Entry]:
        """Every file, in no order; links to folders are not followed. Holds the names of folders, not of files. What
        vanishes meanwhile is not there."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._full(folder)) as found:
                    for entry in found:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        try:
                            if entry.is_dir(follow_symlinks=False):
                                folders.append(path)
                            elif entry.is_file():
                                facts = entry.stat()
                                yield Entry(path, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}")
                        except FileNotFoundError:
                            continue
                        except OSError as error:  # a link that leads to itself, or into a folder that is forbidden
                            on_unreadable(path, error)
            except OSError as error:
                on_unreadable(f"{folder}/", error)

    def write(self, path: str, content: bytes) -> None:
        """Written beside under a name that the next try takes again, brought to the disk, then renamed."""
        full = Path(self._full(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(str(full))
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, full)


class BucketTree(Tree):
    """A bucket of S3, or a prefix in one: listed by the page."""

    def entries(self, on_unreadable: OnUnreadable) -> Iterator[Entry]:
        """Every object, a thousand at a time."""
        bucket, _, prefix = self.root.partition("/")
        prefix = f"{prefix}/" if prefix else ""
        position: dict[str, str] = {}
        while True:
            page = self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **position)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):  # what some tools write to have an empty folder
                    yield Entry(found["Key"].removeprefix(prefix), int(found["Size"]), _stamp(found))
            if not page["IsTruncated"]:
                return
            position = {"ContinuationToken": page["NextContinuationToken"]}


def open_tree(address: str) -> Tree:
    """A folder, or an address such as s3://bucket/scans. Nothing is looked at yet. Raises CollectionError."""
    try:
        files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise CollectionError(f"{address} cannot be reached: {error}") from error
    if isinstance(files, LocalFileSystem):
        return LocalTree(files, os.path.realpath(root))
    if {"s3", "s3a"} & _protocols(files):
        return BucketTree(files, root)
    return Tree(files, root)


def expect_apart(one: Tree, other: Tree, reason: str) -> None:
    """Raises CollectionError, with the reason why that must not be, if one lies in the other."""
    addresses = [f"{tree.address}/" for tree in (one, other)]
    if addresses[0].startswith(addresses[1]) or addresses[1].startswith(addresses[0]):
        raise CollectionError(f"{other.address} and {one.address} lie in one another; {reason}")


def _protocols(files: Any) -> set[str]:
    protocol = files.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def _beside(full: str) -> str:
    """Of the same length for any name, as a name may be as long as the file system has it."""
    folder, slash, name = full.rpartition("/")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{folder}{slash}.{digest[:16]}.part"


def _stamp(facts: dict[str, Any]) -> str:
    tag = facts.get("ETag") or facts.get("mtime") or facts.get("LastModified") or facts.get("modified") or ""
    return f"{facts.get('size', facts.get('Size'))}-{str(tag).strip(chr(34))}"
