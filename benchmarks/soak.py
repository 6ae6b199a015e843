"""`python -m benchmarks.soak`: thousands of small photos and poison, mixed, from many callers at once.

Photos are of every format, with sides of 64 px to `--longest-side-px`. Each is sent alone first; under load it must be
answered with the same bytes. Prints counts and memory, writes `soak.csv` and `soak.png` into `--out`: each second the
memory of the service and its workers, how many photos and how much poison was answered, how often the answer was 503,
and the median and longest time of a photo. Ctrl-C ends it early, with what there is by then. Ends with status 1 if a
photo was answered with anything but its bytes or 503, or poison with another 5xx.
"""

import argparse
import csv
import hashlib
import itertools
import math
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.photos import WRITERS, make_poison, make_small_photos
from benchmarks.process_tree import MIB, tree_bytes
from benchmarks.running import ANSWER_SECONDS, running_service

COLUMNS = ("second", "memory_mib", "photos", "poison", "refused", "median_seconds", "longest_seconds")
SHORTEST_SIDE_PX = 64
NUM_PHOTOS = 4 * len(WRITERS)
POISON_SHARE = 0.3
MOST_RETRY_SECONDS = 30.0
"""After a 503 a caller waits as long as it is asked to, but no longer than this."""

Digest = str


@dataclass
class Tally:
    """What happened since the last row; written to by every caller."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    num_poison: int = 0
    num_refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def note_photo(self, answer: httpx.Response, seconds: float, expected: Digest) -> None:
        with self.lock:
            if answer.status_code == 503:
                self.num_refused += 1
            elif answer.status_code != 200:
                self.wrong.append(f"a photo was answered with {answer.status_code}: {answer.text[:200]}")
            else:
                self.seconds.append(seconds)
                if digest_of(answer) != expected:
                    self.wrong.append("a photo was answered with other bytes than alone")

    def note_wrong(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)

    def note_poison(self, answer: httpx.Response) -> None:
        with self.lock:
            if answer.status_code == 503:
                self.num_refused += 1
            elif answer.status_code < 500:
                self.num_poison += 1
            else:
                self.wrong.append(f"poison was answered with {answer.status_code}: {answer.text[:200]}")

    def take(self) -> tuple[list[float], int, int]:
        with self.lock:
            taken = self.seconds, self.num_poison, self.num_refused
            self.seconds, self.num_poison, self.num_refused = [], 0, 0
            return taken


def digest_of(answer: httpx.Response) -> Digest:
    return hashlib.sha256(answer.content).hexdigest()


def restore_alone(address: str, photos: Sequence[bytes]) -> list[Digest]:
    """Of each photo's answer."""
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        answers = [client.post(f"{address}/restore", content=photo).raise_for_status() for photo in photos]
    return [digest_of(answer) for answer in answers]


class Turns:
    """So many, which all callers share, until the time is up."""

    def __init__(self, num: int, minutes: float) -> None:
        self._left = iter(range(num))
        self._until_seconds = time.monotonic() + 60 * minutes

    def __iter__(self) -> Iterator[int]:
        return itertools.takewhile(lambda _: time.monotonic() < self._until_seconds, self._left)

    def end(self) -> None:
        self._until_seconds = 0.0


def keep_asking(
    address: str,
    photos: list[bytes],
    expected: Sequence[Digest],
    seed: int,
    turns: Turns,
    tally: Tally,
    mean_pause_seconds: float,
) -> None:
    """Until there are no more turns; with pauses of random length after each answer."""
    rng = np.random.default_rng(seed)
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        for _ in turns:
            which = int(rng.integers(len(photos)))
            is_poison = bool(rng.random() < POISON_SHARE)
            body = make_poison(photos, rng) if is_poison else photos[which]
            started_seconds = time.monotonic()
            try:
                answer = client.post(f"{address}/restore", content=body)
            except httpx.TransportError as error:
                tally.note_wrong(f"no answer: {error!r}")
                continue
            if is_poison:
                tally.note_poison(answer)
            else:
                tally.note_photo(answer, time.monotonic() - started_seconds, expected[which])
            if answer.status_code == 503:
                time.sleep(min(float(answer.headers.get("Retry-After", 1)), MOST_RETRY_SECONDS))
            time.sleep(rng.exponential(mean_pause_seconds))


def rows(pid: int, asking: Sequence[Future[None]], tally: Tally) -> Iterator[tuple[float, ...]]:
    """One a second, as in COLUMNS, until all have asked; a second without an answer has no times."""
    started_seconds = time.monotonic()
    is_over = False
    while not is_over:
        time.sleep(1.0)
        is_over = all(each.done() for each in asking)  # asked first: what is answered after the last row would be lost
        seconds, num_poison, num_refused = tally.take()
        times = (statistics.median(seconds), max(seconds)) if seconds else (float("nan"), float("nan"))
        now_seconds = round(time.monotonic() - started_seconds)
        yield now_seconds, tree_bytes(pid) / MIB, len(seconds), num_poison, num_refused, *times


def plot(table: Sequence[tuple[float, ...]], path: Path) -> None:
    from matplotlib.figure import Figure

    second, memory, photos, poison, refused, median, longest = zip(*table, strict=True)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    axes[0].plot(second, memory)
    axes[0].set(ylabel="memory of all processes, MiB", ylim=(0, None))
    axes[1].plot(second, median, ".", markersize=3, label="median")
    axes[1].plot(second, longest, ".", markersize=3, label="longest")
    axes[1].set(ylabel="seconds to an answer", ylim=(0, None))
    axes[1].legend()
    for counts, label in ((photos, "photos"), (poison, "poison"), (refused, "503")):
        axes[2].plot(second, np.cumsum(counts), label=label)
    axes[2].set(ylabel="answers in all", xlabel="seconds")
    axes[2].legend()
    figure.savefig(path, dpi=100)


def write_rows(table: Iterable[tuple[float, ...]], path: Path) -> list[tuple[float, ...]]:
    """As they come."""
    written = []
    with path.open("w", newline="", encoding="utf-8", buffering=1) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in table:
            writer.writerow(row)
            written.append(row)
    return written


def quarter_means_mib(table: Sequence[tuple[float, ...]]) -> list[float]:
    return [float(np.mean(part)) for part in np.array_split([row[1] for row in table], 4)]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=10_000)
    arguments.add_argument("--minutes", type=float, default=math.inf, help="after which it ends in any case")
    arguments.add_argument("--callers", type=int, default=64)
    arguments.add_argument("--queue", type=int, default=60, help="the service's limit of requests: fewer than callers")
    arguments.add_argument("--pause-seconds", type=float, default=0.0, help="mean, of each caller after each answer")
    arguments.add_argument("--longest-side-px", type=int, default=256)
    arguments.add_argument("--out", type=Path, default=Path("runs/soak"))
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    photos = make_small_photos(NUM_PHOTOS, (SHORTEST_SIDE_PX, asked.longest_side_px))
    tally = Tally()
    with (
        running_service(max_queued_requests=asked.queue) as (address, pid),
        ThreadPoolExecutor(asked.callers) as callers,
    ):
        expected = restore_alone(address, photos)
        turns = Turns(asked.requests, asked.minutes)
        signal.signal(signal.SIGINT, lambda *_: turns.end())
        asking = [
            callers.submit(keep_asking, address, photos, expected, seed, turns, tally, asked.pause_seconds)
            for seed in range(asked.callers)
        ]
        table = write_rows(rows(pid, asking, tally), asked.out / "soak.csv")
        for each in asking:
            each.result()
    plot(table, asked.out / "soak.png")
    photos_answered, poison, refused = (sum(row[column] for row in table) for column in (2, 3, 4))
    print(f"{photos_answered:.0f} photos, {poison:.0f} times poison, {refused:.0f} times 503 in {table[-1][0]:.0f} s")
    print(f"memory in each quarter, mean: {', '.join(f'{mib:,.0f}' for mib in quarter_means_mib(table))} MiB")
    for wrong, found in itertools.groupby(sorted(tally.wrong)):
        print(f"{len(list(found))} times: {wrong}", file=sys.stderr)
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
