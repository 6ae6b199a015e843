"""`python -m benchmarks.soak`: photos and poison, mixed, over HTTP for some minutes; memory and latency over time.

Writes `soak.csv` and `soak.png` into `--out`: each second the resident memory of the service and its workers, how many
photos and how much poison was answered, and the median and longest answer of the photos. Ends with status 1 if
a photo was answered with anything but 200 or 503, or poison with a 5xx.
"""

import argparse
import csv
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.serving import make_photo, running_service

COLUMNS = ("second", "memory_mib", "photos", "poison", "median_seconds", "longest_seconds")
PHOTO_SIZES_PX = ((256, 256), (384, 512), (768, 1024))


@dataclass
class Tally:
    """What happened since the last row; written to by every caller."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    num_poison: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, is_poison: bool, status: int, seconds: float) -> None:
        with self.lock:
            if is_poison and status < 500:
                self.num_poison += 1
            elif not is_poison and status in (200, 503):
                self.seconds.append(seconds)
            else:
                self.wrong.append(f"{'poison' if is_poison else 'a photo'} was answered with {status}")

    def take(self) -> tuple[list[float], int]:
        with self.lock:
            seconds, num_poison = self.seconds, self.num_poison
            self.seconds, self.num_poison = [], 0
            return seconds, num_poison


def make_poison(photos: list[bytes], rng: np.random.Generator) -> bytes:
    """A photo cut short, with some bytes changed, or no photo at all."""
    photo = photos[rng.integers(len(photos))]
    kind = rng.integers(3)
    if kind == 0:
        return photo[: int(len(photo) * rng.uniform(0.01, 0.95))]
    if kind == 1:
        changed = bytearray(photo)
        for at in rng.integers(2, len(photo), 20):
            changed[at] = rng.integers(256)
        return bytes(changed)
    return rng.bytes(int(rng.integers(1, 1_000_000)))


def keep_asking(address: str, photos: list[bytes], seed: int, until_seconds: float, tally: Tally) -> None:
    rng = np.random.default_rng(seed)
    with httpx.Client(timeout=300.0) as client:
        while time.monotonic() < until_seconds:
            is_poison = bool(rng.random() < 0.5)
            body = make_poison(photos, rng) if is_poison else photos[rng.integers(len(photos))]
            started_seconds = time.monotonic()
            status = client.post(f"{address}/restore", content=body).status_code
            tally.note(is_poison, status, time.monotonic() - started_seconds)


def memory_mib(pid: int) -> float:
    """Resident, of the process and its children; what they share is counted for each."""
    children = (path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return sum(resident_mib(each) for each in [str(pid), *" ".join(children).split()])


def resident_mib(pid: str) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:  # it was just replaced
        return 0.0
    return pages * 4096 / 2**20


def rows(pid: int, until_seconds: float, tally: Tally) -> Iterator[tuple[float, ...]]:
    """One a second, as in COLUMNS; a second without an answer has no times."""
    started_seconds = time.monotonic()
    while (now_seconds := time.monotonic()) < until_seconds:
        seconds, num_poison = tally.take()
        times = (statistics.median(seconds), max(seconds)) if seconds else (float("nan"), float("nan"))
        yield round(now_seconds - started_seconds), memory_mib(pid), len(seconds), num_poison, *times
        time.sleep(1.0)


def plot(table: list[tuple[float, ...]], path: Path) -> None:
    from matplotlib.figure import Figure

    second, memory, photos, poison, median, longest = zip(*table, strict=True)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    axes[0].plot(second, memory)
    axes[0].set(ylabel="resident memory, MiB", ylim=(0, None))
    axes[1].plot(second, median, ".", markersize=3, label="median")
    axes[1].plot(second, longest, ".", markersize=3, label="longest")
    axes[1].set(ylabel="seconds to an answer", ylim=(0, None))
    axes[1].legend()
    axes[2].plot(second, np.cumsum(photos), label="photos")
    axes[2].plot(second, np.cumsum(poison), label="poison")
    axes[2].set(ylabel="answers in all", xlabel="seconds")
    axes[2].legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--callers", type=int, default=4)
    arguments.add_argument("--out", type=Path, default=Path("runs/soak"))
    asked = arguments.parse_args()
    photos = [make_photo(index, *PHOTO_SIZES_PX[index % 3]) for index in range(12)]
    tally = Tally()
    with running_service() as (address, pid), ThreadPoolExecutor(asked.callers) as callers:
        until_seconds = time.monotonic() + asked.minutes * 60
        asking = [
            callers.submit(keep_asking, address, photos, seed, until_seconds, tally) for seed in range(asked.callers)
        ]
        table = list(rows(pid, until_seconds, tally))
        for each in asking:
            each.result()
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    plot(table, asked.out / "soak.png")
    print(f"{sum(row[2] for row in table):.0f} photos, {sum(row[3] for row in table):.0f} times poison")
    print(f"memory: {table[len(table) // 4][1]:,.0f} MiB after a quarter, {table[-1][1]:,.0f} MiB at the end")
    for wrong in sorted(set(tally.wrong)):
        print(wrong, file=sys.stderr)
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
