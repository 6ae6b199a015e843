"""The journal of a collection: what became of each photo, in a SQLite file that a crash at any moment leaves whole.

A photo is noted as begun before anything of it is written, and as done when its output is in place: whatever a crash
leaves is one or the other.
"""

import dataclasses
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from filelock import FileLock, Timeout

from archive.errors import CollectionError, RunStopped

Status = Literal["begun", "done", "failed"]

SCHEMA_VERSION = 2
_SCHEMA = f"""
CREATE TABLE collection (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    source TEXT NOT NULL, destination TEXT NOT NULL, damage_maps TEXT, release TEXT NOT NULL, options TEXT NOT NULL
);
CREATE TABLE photos (
    path TEXT PRIMARY KEY, stamp TEXT NOT NULL, status TEXT NOT NULL, noted TEXT NOT NULL,
    source_sha256 TEXT, release TEXT, options TEXT,
    output_sha256 TEXT, output_bytes INTEGER, damage_map_sha256 TEXT,
    damage_ratio REAL, height_px INTEGER, width_px INTEGER, seconds REAL,
    reason TEXT, detail TEXT,
    suspected_from REAL
) WITHOUT ROWID;
CREATE INDEX photos_by_damage ON photos (status, damage_ratio);
CREATE INDEX photos_by_reason ON photos (status, reason);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_FROM_VERSION_1 = """
ALTER TABLE photos ADD COLUMN suspected_from REAL;
UPDATE photos SET output_sha256 = '', damage_map_sha256 = '' WHERE status = 'begun';
PRAGMA user_version = 2;
"""
"""What was begun may have been written, and was not noted ahead. The column is_ours stays, and is not read any more."""
_READ_VERSION_1 = "CREATE TEMP VIEW photos AS SELECT *, NULL AS suspected_from FROM main.photos"
"""Whoever reads changes nothing."""


@dataclass(frozen=True)
class Collection:
    """What a journal is of. damage_maps: where they go, None if nowhere; release and options: of the last run."""

    source: str
    destination: str
    damage_maps: str | None
    release: str
    options: str


@dataclass(frozen=True)
class Record:
    """What became of a photo.

    stamp: of the source when it was read; output_sha256, damage_map_sha256: of the files of ours that there are, None
    if there is none; while a photo is begun, of each that there may be, the one of before and the new one, with a
    space between; noted: when, in UTC; suspected_from: see `archive.answers.Restored`.
    """

    path: str
    stamp: str
    status: Status
    noted: str = ""
    source_sha256: str | None = None
    release: str | None = None
    options: str | None = None
    output_sha256: str | None = None
    output_bytes: int | None = None
    damage_map_sha256: str | None = None
    damage_ratio: float | None = None
    height_px: int | None = None
    width_px: int | None = None
    seconds: float | None = None
    reason: str | None = None
    detail: str | None = None
    suspected_from: float | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Record))
# Paths that are no UTF-8 go in and out as the bytes they are: CAST makes text of them, `text_factory` reads it
_WRITE = f"INSERT OR REPLACE INTO photos ({', '.join(COLUMNS)}) VALUES (CAST(? AS TEXT){', ?' * (len(COLUMNS) - 1)})"


class Journal:
    """`find`, `note` and `forget` are for any number of threads of one process, the rest for when none of them is at
    work; other processes may read along."""

    def __init__(self, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self._connection = connection
        self._lock = lock
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """To write; created if there is none. Raises CollectionError if that cannot be, or another process writes to
        it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise CollectionError(f"another run writes to the journal {path}; wait until it has ended") from error
        try:
            return cls(_connect_to_write(path), lock)
        except CollectionError:
            lock.release()
            raise

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Raises CollectionError if there is none."""
        if not path.is_file():
            raise CollectionError(f"there is no journal {path}; name the one of your run with --journal")
        with _expecting_journal(path):
            connection = _connect_to_read(path)
            if _read_version(connection, path) == 1:
                connection.execute(_READ_VERSION_1)
        return cls(connection, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def collection(self) -> Collection | None:
        """None before the first run."""
        columns = [field.name for field in dataclasses.fields(Collection)]
        row = self._connection.execute(f"SELECT {', '.join(columns)} FROM collection").fetchone()
        return Collection(*row) if row else None

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        """One change, durable at the end. Raises RunStopped: without its journal, a run must not go on."""
        try:
            with self._one_at_a_time, self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise RunStopped(f"the journal takes no more: {error}; make room on its disk, run again") from error

    def set_collection(self, collection: Collection) -> None:
        """Maps in another folder than before are no longer known of."""
        values = [value and _as_bytes(value) for value in dataclasses.astuple(collection)]
        placeholders = ", CAST(? AS TEXT)" * len(values)
        with self._written() as connection:
            before = self.collection()
            if before is not None and before.damage_maps != collection.damage_maps:
                connection.execute("UPDATE photos SET damage_map_sha256 = NULL")
            connection.execute(f"INSERT OR REPLACE INTO collection VALUES (1{placeholders})", values)

    def find(self, path: str) -> Record | None:
        with self._one_at_a_time:
            row = self._connection.execute(
                f"SELECT {', '.join(COLUMNS)} FROM photos WHERE path = CAST(? AS TEXT)", (_as_bytes(path),)
            ).fetchone()
        return Record(*row) if row else None

    def note(self, record: Record) -> None:
        """Durable when it returns. Raises RunStopped, as all that writes here does."""
        path, *values = dataclasses.astuple(dataclasses.replace(record, noted=utc_now()))
        with self._written() as connection:
            connection.execute(_WRITE, (_as_bytes(path), *map(_as_printable, values)))

    def forget(self, path: str) -> None:
        with self._written() as connection:
            connection.execute("DELETE FROM photos WHERE path = CAST(? AS TEXT)", (_as_bytes(path),))

    def forget_folders(self) -> None:
        """Folders that could not be listed are noted with a slash at their end; the next listing tells anew."""
        with self._written() as connection:
            connection.execute("DELETE FROM photos WHERE path LIKE '%/'")

    def count(self) -> dict[Status, int]:
        counts: dict[Status, int] = {"begun": 0, "done": 0, "failed": 0}
        counts.update(self._connection.execute("SELECT status, COUNT(*) FROM photos GROUP BY status"))
        return counts

    def totals(self) -> dict[str, float]:
        """Of the photos that are done: damaged, clean, of these suspected; pixels, seconds, output_bytes."""
        names = ("damaged", "clean", "suspected", "pixels", "seconds", "output_bytes")
        row = self._connection.execute(
            "SELECT TOTAL(damage_ratio > 0), TOTAL(damage_ratio = 0), COUNT(suspected_from), "
            "TOTAL(height_px * width_px), TOTAL(seconds), TOTAL(output_bytes) FROM photos WHERE status = 'done'"
        ).fetchone()
        return dict(zip(names, row, strict=True))

    def count_failures(self) -> dict[str, int]:
        """By reason, the most frequent first."""
        return dict(
            self._connection.execute(
                "SELECT reason, COUNT(*) FROM photos WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC, 1"
            )
        )

    def records(self, status: Status | None = None) -> Iterator[Record]:
        """By path. Read as they are asked for; leave the journal alone meanwhile."""
        where, values = ("WHERE status = ?", (status,)) if status else ("", ())
        yield from self._select(f"{where} ORDER BY path", values)

    def most_damaged(self, most: int) -> list[Record]:
        """Those that are done and in which something was restored, the most first."""
        where = "WHERE status = 'done' AND damage_ratio > 0 ORDER BY damage_ratio DESC, path LIMIT ?"
        return list(self._select(where, (most,)))

    def most_suspected(self, most: int) -> list[Record]:
        """Those that are done and in which nothing was restored, but would be with a higher sensitivity, the lowest
        first."""
        where = "WHERE status = 'done' AND suspected_from IS NOT NULL ORDER BY suspected_from, path LIMIT ?"
        return list(self._select(where, (most,)))

    def _select(self, rest: str, values: tuple[Any, ...]) -> Iterator[Record]:
        for row in self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM photos {rest}", values):
            yield Record(*row)


def utc_now() -> str:
    """As `Record.noted` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _connect_to_write(path: Path) -> sqlite3.Connection:
    with _expecting_journal(path):
        connection = _connect(path)
        is_new = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
        if not is_new:
            _read_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if is_new:
            with connection:
                connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        if _read_version(connection, path) == 1:
            with connection:
                connection.executescript(f"BEGIN; {_FROM_VERSION_1} COMMIT;")
        return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """SQLite, to read, writes beside the journal what it shares with a run. Where it can't, as the folder is read-only,
    the journal is read as a file that does not change, unless there is more of it than that file."""
    connection = _connect(path)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        written_ahead = path.with_name(f"{path.name}-wal")
        if written_ahead.exists() and written_ahead.stat().st_size:
            raise
        return _connect(f"file:{quote(os.fsencode(path))}?immutable=1", uri=True)
    return connection


def _connect(database: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=60, check_same_thread=False, uri=uri)
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return connection


@contextmanager
def _expecting_journal(path: Path) -> Iterator[None]:
    """Raises CollectionError for whatever SQLite has to say."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CollectionError(
            f"the journal {path} cannot be opened: {error}; is its disk full, its folder read-only, or is it a folder "
            "itself? Name another with --journal"
        ) from error
    except sqlite3.DatabaseError as error:
        raise CollectionError(f"{path} is no journal: {error}; name another with --journal") from error


def _read_version(connection: sqlite3.Connection, path: Path) -> int:
    """1 or `SCHEMA_VERSION`. Raises CollectionError for any other."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in (1, SCHEMA_VERSION):
        raise CollectionError(f"{path} has version {found}, this software reads journals up to {SCHEMA_VERSION}")
    return int(found)


def _as_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _as_printable(value: Any) -> Any:
    """What a message quotes may be no text that can be encoded."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
