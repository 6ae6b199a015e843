"""A run: every photo of the source that is not restored yet, restored into the destination.

    listing ── what is not done ──► read ── way ──► restored ── written beside, renamed ──► journal

Photos go through in threads, a few at a time; the listing waits for them.
"""

import errno
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from archive.answers import Restored
from archive.errors import PhotoFailed, RunStopped
from archive.journal import Journal, Record, utc_now
from archive.outputs import damage_map_path, either_sha256, expect_ours, explain, put, sha256_of
from archive.trees import Entry, OnUnreadable, Selection, Tree
from archive.ways import Options, Way
from restoration.errors import PhotoError
from restoration.photo import PhotoLimits, measure_photo

DESTINATION_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
NO_LIMITS = PhotoLimits(max_pixels=2**62, max_side_px=2**31)  # measured for the record only; the way has its limits


@dataclass(frozen=True)
class Places:
    """Where photos come from and go to; damage_maps: where they go, or earlier ones are, None if nowhere."""

    source: Tree
    destination: Tree
    damage_maps: Tree | None = None


@dataclass(frozen=True)
class Bounds:
    """What is taken of the source. limit: photos in this run; max_bytes: of one photo, more is a failure."""

    selection: Selection = field(default_factory=Selection)
    limit: int | None = None
    max_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class Goal:
    """What is wanted of each photo. only_damaged: an output only of those in which damage was found."""

    places: Places
    release: str
    options: Options
    only_damaged: bool = False

    def is_reached(self, entry: Entry, known: Record | None) -> bool:
        """By the journal, and by a look at whether its files are still there."""
        if known is None or known.status != "done" or known.stamp != entry.stamp:
            return False
        if (known.release, known.options) != (self.release, self.options.key()):
            return False
        return self._has_output(known) and self._has_damage_map(known)

    def _has_output(self, known: Record) -> bool:
        if known.output_sha256 is None:
            return self.only_damaged
        return self.places.destination.num_bytes(known.path) == known.output_bytes

    def _has_damage_map(self, known: Record) -> bool:
        if self.places.damage_maps is None or not self.options.damage_maps or not known.damage_ratio:
            return True
        written = known.damage_map_sha256 is not None
        return written and self.places.damage_maps.num_bytes(damage_map_path(known.path)) is not None


@dataclass
class Tally:
    """What a run has done so far. Read by whoever shows it; written by the run, under `lock`."""

    num_restored: int = 0
    num_damaged: int = 0
    num_skipped: int = 0
    num_failed: int = 0
    num_pixels: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **numbers: int) -> None:
        with self.lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)


class Run:
    """One call of `go`. Whoever holds it may read `tally` and call `stop` meanwhile, from any thread."""

    def __init__(self, goal: Goal, bounds: Bounds, journal: Journal, way: Way) -> None:
        """way: of the goal's release."""
        self.tally = Tally()
        self._goal = goal
        self._places = goal.places
        self._bounds = bounds
        self._journal = journal
        self._way = way
        self._num_begun = 0
        self._is_at_limit = False
        self._stopped: RunStopped | None = None

    def stop(self, reason: RunStopped) -> None:
        """Finish the photos in the works and begin no other; `go` then raises the reason."""
        if self._stopped is None:
            self._stopped = reason

    def go(self) -> Tally:
        """Raises RunStopped if it ended before its time."""
        begun = utc_now()
        self._journal.forget_folders()
        slots = threading.Semaphore(2 * self._way.num_at_once)  # one in the works and one waiting for each thread

        def handle(entry: Entry) -> None:
            try:
                if not self._has_ended():
                    self._handle(entry)
            except RunStopped as error:
                self.stop(error)
            except Exception as error:  # what cannot even be noted must not be lost
                self.stop(RunStopped(f"what became of {entry.path!r} cannot be noted: {error!r}"))
            finally:
                slots.release()

        with ThreadPoolExecutor(self._way.num_at_once, "photo") as threads:
            for entry in photos_of(self._places.source, self._bounds.selection, self._note_unlisted):
                slots.acquire()
                if self._has_ended():
                    break
                threads.submit(handle, entry)
        if self._stopped is not None:
            raise self._stopped
        self._forget_what_is_gone(begun)
        return self.tally

    def _has_ended(self) -> bool:
        return self._stopped is not None or self._is_at_limit

    def _handle(self, entry: Entry) -> None:
        """Whatever is wrong with a photo is noted, and the run goes on. Raises RunStopped if it can't."""
        try:
            known = self._journal.find(entry.path)
            if self._goal.is_reached(entry, known):
                self.tally.add(num_skipped=1)
            else:
                self._bring_up_to_date(entry, known)
        except PhotoFailed as error:
            self._note_failed(entry, error)
        except RunStopped:
            raise
        except Exception as error:
            self._note_failed(entry, unforeseen(error))

    def _bring_up_to_date(self, entry: Entry, known: Record | None) -> None:
        photo = read_photo(self._places.source, entry, self._bounds.max_bytes)
        source_sha256 = sha256_of(photo)
        same = replace(known, stamp=entry.stamp) if known and known.source_sha256 == source_sha256 else None
        if same and self._goal.is_reached(entry, same):  # touched, but not changed
            self._journal.note(same)
            self.tally.add(num_skipped=1)
        elif self._may_begin():
            self._restore(entry, known or Record(entry.path, entry.stamp, "begun"), photo, source_sha256)

    def _may_begin(self) -> bool:
        """Counts against the limit."""
        with self.tally.lock:
            if self._bounds.limit is not None and self._num_begun >= self._bounds.limit:
                self._is_at_limit = True
                return False
            self._num_begun += 1
            return True

    def _restore(self, entry: Entry, known: Record, photo: bytes, source_sha256: str) -> None:
        maps = self._maps_to_change(known, source_sha256)
        self._expect_ours(known, maps)
        begun_seconds = time.perf_counter()
        restored = self._way.restore(photo)
        height_px, width_px = measure(restored.content)
        found = self._expect_ours(known, maps)  # again: restoring takes its time
        written = self._write(found, restored, maps)
        done = Record(
            entry.path,
            entry.stamp,
            "done",
            source_sha256=source_sha256,
            release=restored.model_version,
            options=self._goal.options.key(),
            output_sha256=written.output_sha256,
            output_bytes=written.output_bytes,
            damage_map_sha256=written.damage_map_sha256,
            damage_ratio=restored.damage_ratio,
            suspected_from=restored.suspected_from,
            height_px=height_px,
            width_px=width_px,
            seconds=time.perf_counter() - begun_seconds,
        )
        self._journal.note(done)
        self.tally.add(num_restored=1, num_damaged=int(restored.damage_ratio > 0), num_pixels=height_px * width_px)

    def _maps_to_change(self, known: Record, source_sha256: str) -> Tree | None:
        """Where the photo's map is to be written, or one of before removed. None if neither: a run that makes no maps
        keeps those that are right."""
        right = (source_sha256, self._goal.release, self._goal.options.key())
        is_right = (known.source_sha256, known.release, known.options) == right
        if self._goal.options.damage_maps or (known.damage_map_sha256 is not None and not is_right):
            return self._places.damage_maps
        return None

    def _expect_ours(self, known: Record, maps: Tree | None) -> Record:
        """Returns it with those of its files that are there. Raises PhotoFailed if one is somebody else's, or changed
        since: before the first of them is touched."""
        output_sha256 = expect_ours(self._places.destination, known.path, known.output_sha256)
        map_sha256 = known.damage_map_sha256
        if maps is not None:
            map_sha256 = expect_ours(maps, damage_map_path(known.path), map_sha256)
        return replace(known, output_sha256=output_sha256, damage_map_sha256=map_sha256)

    def _write(self, found: Record, restored: Restored, maps: Tree | None) -> Record:
        """Brings the photo's files to where they belong, and removes those of before that belong there no more.

        found: with the files that are there; returned with those that are there then. What else it says stays as it is
        until the photo is done: a file of before is of another source, release or options. maps: where the damage map
        goes, None to leave it as it is.
        """
        there = replace(found, status="begun")
        is_damaged = restored.damage_ratio > 0
        output = restored.content if is_damaged or not self._goal.only_damaged else None
        output_sha256 = None if output is None else sha256_of(output)
        damage_map = restored.damage_map if is_damaged else None
        map_sha256 = None if damage_map is None else sha256_of(damage_map)
        self._journal.note(
            replace(
                there,
                output_sha256=either_sha256(there.output_sha256, output_sha256),
                damage_map_sha256=either_sha256(there.damage_map_sha256, map_sha256),
            )
        )
        try:
            put(self._places.destination, there.path, output, there.output_sha256)
            there = replace(there, output_sha256=output_sha256, output_bytes=None if output is None else len(output))
            if maps is not None:
                put(maps, damage_map_path(there.path), damage_map, there.damage_map_sha256)
                there = replace(there, damage_map_sha256=map_sha256)
            return there
        except OSError as error:
            self._journal.note(there)
            if error.errno in DESTINATION_IS_FULL:
                raise RunStopped(f"the destination takes no more: {explain(error)}; make room, run again") from error
            raise PhotoFailed("unwritable", explain(error)) from error

    def _note_failed(self, entry: Entry, error: PhotoFailed) -> None:
        """Earlier files stay where they are, and stay ours."""
        known = self._journal.find(entry.path) or Record(entry.path, entry.stamp, "failed")
        failed = replace(known, stamp=entry.stamp, status="failed", reason=error.reason, detail=error.detail)
        self._journal.note(failed)
        self.tally.add(num_failed=1)

    def _note_unlisted(self, path: str, error: OSError) -> None:
        reason = "folder-unreadable" if path.endswith("/") else "source-unreadable"
        self._note_failed(Entry(path, 0, ""), PhotoFailed(reason, explain(error)))

    def _forget_what_is_gone(self, begun: str) -> None:
        """Photos that failed before this run, and are not in the source any more. Those that have files of ours here
        are kept: only the journal knows whose these are."""
        gone = [
            record.path
            for record in self._journal.records("failed")
            if record.noted <= begun
            and (record.output_sha256, record.damage_map_sha256) == (None, None)
            and self._is_gone(record.path)
        ]
        for path in gone:
            self._journal.forget(path)

    def _is_gone(self, path: str) -> bool:
        try:
            return self._places.source.num_bytes(path) is None
        except OSError:
            return False


def photos_of(source: Tree, selection: Selection, on_unreadable: OnUnreadable) -> Iterator[Entry]:
    """One after the other, as they are listed. on_unreadable: told of any folder, and of files that are selected."""

    def tell(path: str, error: OSError) -> None:
        if path.endswith("/") or selection.takes(path):
            on_unreadable(path, error)

    return (entry for entry in source.entries(tell) if selection.takes(entry.path))


def read_photo(source: Tree, entry: Entry, max_bytes: int) -> bytes:
    """Raises PhotoFailed."""
    if entry.num_bytes > max_bytes:
        raise PhotoFailed(
            "file-too-large",
            f"the file has {entry.num_bytes:,} bytes, and the limit is {max_bytes:,}; raise it with --max-bytes",
        )
    try:
        return source.read(entry.path)
    except OSError as error:
        raise PhotoFailed("source-unreadable", explain(error)) from error


def unforeseen(error: Exception) -> PhotoFailed:
    """What was raised for a photo and by no plan: it must not stop the others."""
    return PhotoFailed("internal-error", repr(error)[:500])


def measure(content: bytes) -> tuple[int, int]:
    """Height and width in pixels, by the header."""
    try:
        return measure_photo(content, NO_LIMITS)
    except PhotoError as error:
        raise PhotoFailed("answer-unreadable", f"what came back is no photo: {error}") from error
