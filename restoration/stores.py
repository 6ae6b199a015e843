"""Where releases are looked for: a folder, or a store elsewhere of which verified copies are kept in a folder."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from restoration.errors import NoRelease, ReleaseInvalid, StoreUnreachable
from restoration.release import MANIFEST, Release, is_version, list_releases, read_manifest, read_release
from restoration.remote_store import URL_PATTERN, Fingerprint, RemoteStore

INCOMING = ".incoming"

StoreAddress = Path | str
"""A folder, or an fsspec URL."""


class Store(Protocol):
    def refresh(self) -> None:
        """Look at the store anew. Raises StoreUnreachable; what was known before stays known."""

    def versions(self) -> list[str]:
        """The numbers of its releases, newest last. Raises StoreUnreachable."""

    def fingerprint(self, version: str) -> Fingerprint:
        """Cheap, and another one when anything in the release was changed. Raises OSError."""

    def read(self, version: str) -> Release:
        """The release, in a folder, verified. Raises NoRelease, ReleaseInvalid, StoreUnreachable."""


def address_of(text: str) -> StoreAddress:
    return text if re.match(URL_PATTERN, text) else Path(text)


def open_store(where: StoreAddress, *, copies: Path, num_copies: int) -> Store:
    """where: a folder, or a URL whose releases are copied to a folder of its own in `copies`, `num_copies` at most.

    Contacts nobody. Raises InvalidOption for a URL that cannot be opened.
    """
    if isinstance(where, Path):
        return FolderStore(where)
    name = hashlib.sha256(where.encode()).hexdigest()[:16]
    return MirroredStore(RemoteStore(where), copies.expanduser() / name, num_copies)


class FolderStore:
    """A folder that is not there yet is empty; one that is gone, as when it is no longer mounted, is a fault."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._was_there = False

    def __str__(self) -> str:
        return str(self._folder)

    def refresh(self) -> None:
        self.versions()  # nothing is remembered of it

    def versions(self) -> list[str]:
        try:
            if self._folder.is_dir():
                self._was_there = True
            elif self._was_there:
                raise StoreUnreachable(f"the model store {self._folder} is gone; mount it again, or bring it back")
            return list_releases(self._folder)
        except OSError as error:
            raise StoreUnreachable(f"the model store {self._folder} cannot be read: {error.strerror}") from error

    def fingerprint(self, version: str) -> Fingerprint:
        return _fingerprint_of(self._folder / version)

    def read(self, version: str) -> Release:
        return read_release(self._folder, version)


class MirroredStore:
    """Serves from copies, each verified as a whole before it is seen; so a store that fails takes nothing away.

    Several processes may share the folder of copies: one of them fetches while the others wait.
    """

    def __init__(self, remote: RemoteStore, folder: Path, num_copies: int) -> None:
        self._remote = remote
        self._folder = folder
        self._num_copies = num_copies
        self._seen: dict[str, Fingerprint] | None = None

    def __str__(self) -> str:
        return str(self._remote)

    def refresh(self) -> None:
        self._seen = self._remote.list_releases()

    def versions(self) -> list[str]:
        """Those that the store held when it last answered; before it ever did, those that are copied."""
        return list_releases(self._folder) if self._seen is None else sorted(self._seen, key=int)

    def fingerprint(self, version: str) -> Fingerprint:
        if self._seen is None:
            return _fingerprint_of(self._folder / version)
        return self._seen.get(version, ())

    def read(self, version: str) -> Release:
        """From a copy if its manifest is the store's, or the store does not answer; else it is fetched first."""
        if not is_version(version):
            raise NoRelease(f"{self} holds no release {version!r}: that is no release's number")
        with self._keeping_copies(), alone_in(self._folder):
            copy = self._find_copy(version)
            try:
                manifest = self._remote.read_manifest(version)
            except StoreUnreachable:
                if copy is None:
                    raise
                return copy
            if copy is None or not _holds(copy.path / MANIFEST, manifest):
                copy = self._fetch(version, manifest)
            self._discard_old_copies(version)
            return copy

    def _find_copy(self, version: str) -> Release | None:
        """None where there is none, or it has been damaged."""
        if not (self._folder / version).is_dir():
            return None
        try:
            return read_release(self._folder, version)
        except ReleaseInvalid:
            return None

    def _fetch(self, version: str, manifest: bytes) -> Release:
        """Files of this manifest that came whole before an earlier try broke off are not fetched again."""
        incoming = self._folder / INCOMING  # a store of this one release
        for other in incoming.glob("*"):
            if other.name != version:
                shutil.rmtree(other)
        folder = incoming / version
        if folder.exists() and not _holds(folder / MANIFEST, manifest):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).write_bytes(manifest)
        release = Release(version, folder, read_manifest(folder / MANIFEST, version))
        for name, record in release.manifest.files.items():
            if not _is_whole(release, name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._remote.download(version, name, record.size_bytes, folder / name)
        read_release(incoming, version)
        shutil.rmtree(self._folder / version, ignore_errors=True)
        folder.rename(self._folder / version)
        return Release(version, self._folder / version, release.manifest)

    def _discard_old_copies(self, version: str) -> None:
        others = [each for each in list_releases(self._folder) if each != version]
        for each in others[: max(0, len(others) - (self._num_copies - 1))]:
            shutil.rmtree(self._folder / each)

    @contextmanager
    def _keeping_copies(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnreachable(
                f"no copy of {self} can be kept in {self._folder}: {error.strerror}; make room there, or name another "
                "folder"
            ) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process or thread is here meanwhile; they wait. The folder is made if it is missing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _is_whole(release: Release, name: str) -> bool:
    try:
        release.read(name)
    except ReleaseInvalid:
        return False
    return True


def _fingerprint_of(release_path: Path) -> Fingerprint:
    files = sorted(path for path in release_path.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(release_path)), path.stat()) for path in files]
    return tuple(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
