"""`python -m benchmarks.serving`: the service over HTTP, against the bare generator on the same cores.

Starts `python -m service` on a free port, with the newest release, and prints Markdown tables:

- photos a second and latencies, by size and by how many are sent at a time, over what decoding, restoring and encoding
  the same photos one after the other in one process gives, before and after (the mean of both);
- seconds a megapixel from small to large, and the most memory that the service held meanwhile, its processes that
  decode and encode and what they share included: of one photograph of a megapixel, set side by side 12 and 100 times,
  which has as much to find and to repair in each megapixel; and of the same photograph, enlarged, in which it becomes
  less: so tiles a megapixel are told beside the seconds;
- the 95th percentile of a 512 x 512 photo's time while the largest is being restored, over that alone.

Writes `serving.json` and `serving.png` into `--out`. Other photographs are scikit-image's, enlarged, with scratches
drawn on; an eighth of them has none.
"""

import argparse
import json
import re
import select
import socket
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import httpx

from benchmarks.load import Load, send_all
from benchmarks.photos import make_mosaic, make_photo
from benchmarks.process_tree import MemoryWatch
from benchmarks.running import ANSWER_SECONDS, request_head, restore, running_service
from restoration.photo import decode_photo
from restoration.restorer import Restorer
from restoration.stores import FolderStore

STORE = Path(__file__).resolve().parent.parent / "model_store"
SMALL_PX = (512, 512)
NUM_BESIDE = 20
DECODE_SECONDS = 10.0
"""Within which a scan is decoded, and waits for the device."""


@dataclass(frozen=True)
class Size:
    """num: different photos, and how many are sent for a rate, if that is more than are sent at a time."""

    name: str
    height_px: int
    width_px: int
    num: int
    concurrencies: tuple[int, ...]

    def make_photos(self) -> list[bytes]:
        return [make_photo(1 + index, self.height_px, self.width_px) for index in range(self.num)]


SIZES = (
    Size("256 x 256", 256, 256, 24, (1, 8, 32, 128)),
    Size("512 x 512", 512, 512, 24, (1, 8, 32, 128)),
    Size("1 megapixel", 816, 1225, 12, (1, 8, 32)),
    Size("12 megapixels", 2828, 4243, 2, (1, 4)),
)
MOST_AT_A_TIME = max(max(size.concurrencies) for size in SIZES)


@dataclass(frozen=True)
class Served:
    """over_bare: of the rate of the bare generator."""

    size: str
    concurrency: int
    photos_per_second: float
    over_bare: float
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float


@dataclass(frozen=True)
class Scanned:
    """One large photo, alone."""

    megapixels: float
    seconds: float
    num_tiles: float
    peak_mib: float


def rate_of_bare_generator(restorer: Restorer, photos: Sequence[bytes]) -> float:
    """Photos a second, one after the other in this process."""
    started_seconds = time.perf_counter()
    for encoded in photos:
        photo = decode_photo(encoded)
        restorer.restore(photo).encode(photo)
    return len(photos) / (time.perf_counter() - started_seconds)


def served_at_size(address: str, restorer: Restorer, size: Size) -> Iterator[Served]:
    photos = size.make_photos()
    before = rate_of_bare_generator(restorer, photos)
    loads = {
        concurrency: send_all(restore, address, list(islice(cycle(photos), max(size.num, concurrency))), concurrency)
        for concurrency in size.concurrencies
    }
    bare = statistics.mean((before, rate_of_bare_generator(restorer, photos)))
    for concurrency, load in loads.items():
        rate = load.photos_per_second
        yield Served(size.name, concurrency, rate, rate / bare, *map(load.percentile, (50, 95, 99)))


def count_tiles(client: httpx.Client, address: str) -> float:
    """Computed since the start, of both stages."""
    text = client.get(f"{address}/metrics").text
    return sum(map(float, re.findall(r"^restore_tiles_total\{.*?\} (\S+)$", text, re.MULTILINE)))


def scan(client: httpx.Client, address: str, pid: int, megapixels: float, photo: bytes) -> Scanned:
    num_before = count_tiles(client, address)
    with MemoryWatch.over(pid) as memory:
        seconds = restore(client, address, photo)
    return Scanned(megapixels, seconds, count_tiles(client, address) - num_before, memory.peak_mib)


def beside_a_scan(
    address: str, photos: Sequence[bytes], large: bytes, decode_seconds: float = DECODE_SECONDS
) -> tuple[Load, bool]:
    """And whether the scan was in the works all the time, without which the figures mean nothing. Nobody waits for it
    afterwards."""
    with socket.create_connection(("127.0.0.1", httpx.URL(address).port or 80)) as scanning:
        scanning.sendall(request_head(len(large)) + large)
        time.sleep(decode_seconds)
        load = send_all(restore, address, photos, 1)
        answered, _, _ = select.select([scanning], [], [], 0.0)
    return load, not answered


def sides_px(megapixels: float) -> tuple[int, int]:
    """Height and width, 2 to 3."""
    return round((megapixels * 2 / 3 * 1e6) ** 0.5), round((megapixels * 3 / 2 * 1e6) ** 0.5)


def mosaic_of(megapixels: float) -> tuple[int, bytes]:
    """In whole megapixels, one at least."""
    num_parts = max(1, round(megapixels))
    return num_parts, make_mosaic(num_parts, *sides_px(1))


def plot(served: Sequence[Served], scans: Mapping[str, Sequence[Scanned]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    rates, latencies, large = figure.subplots(1, 3)
    for size in dict.fromkeys(row.size for row in served):
        rows = [row for row in served if row.size == size]
        at_a_time = [row.concurrency for row in rows]
        rates.plot(at_a_time, [row.over_bare for row in rows], "o-", label=size)
        (line,) = latencies.plot(at_a_time, [row.p50_seconds for row in rows], "o-", label=f"{size}, median")
        latencies.plot(at_a_time, [row.p95_seconds for row in rows], "o:", color=line.get_color(), label="95th")
    rates.axhline(0.9, color="grey", linestyle=":")
    rates.set(xscale="log", xlabel="sent at a time", ylabel="photos/s over the bare generator", ylim=(0, None))
    latencies.set(xscale="log", yscale="log", xlabel="sent at a time", ylabel="seconds to an answer")
    for of_what, each in scans.items():
        seconds = [row.seconds / row.megapixels for row in each]
        large.plot([row.megapixels for row in each], seconds, "o-", label=of_what)
    large.set(xscale="log", xlabel="megapixels, alone", ylabel="seconds a megapixel", ylim=(0, None))
    concurrencies = sorted({row.concurrency for row in served})
    for axes in (rates, latencies):
        axes.set_xticks(concurrencies, labels=map(str, concurrencies))
    for axes in (rates, latencies, large):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)


def measure_rates(address: str, restorer: Restorer, sizes: Sequence[Size]) -> list[Served]:
    print("| | at a time | photos/s | over the bare generator | median | 95th percentile | 99th |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    served = []
    for size in sizes:
        for row in served_at_size(address, restorer, size):
            served.append(row)
            latencies = " | ".join(
                f"{seconds:.2f} s" for seconds in (row.p50_seconds, row.p95_seconds, row.p99_seconds)
            )
            rate = f"{row.photos_per_second:.2f} | {row.over_bare:.2f} x"
            print(f"| {size.name} | {row.concurrency} | {rate} | {latencies} |", flush=True)
    return served


def measure_scans(address: str, pid: int, of_what: str, large: Mapping[float, bytes]) -> list[Scanned]:
    """large: by megapixels, the smallest first."""
    print(
        f"\n| megapixels {of_what}, alone | s/megapixel | over the smallest | tiles/megapixel | ms/tile | peak memory |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    scans: list[Scanned] = []
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        for megapixels, photo in large.items():
            row = scan(client, address, pid, megapixels, photo)
            scans.append(row)
            over_smallest = row.seconds / row.megapixels / (scans[0].seconds / scans[0].megapixels)
            print(
                f"| {row.megapixels:g} | {row.seconds / row.megapixels:.2f} | {over_smallest:.2f} x "
                f"| {row.num_tiles / row.megapixels:.0f} | {row.seconds / row.num_tiles * 1000:.1f} "
                f"| {row.peak_mib:,.0f} MiB |",
                flush=True,
            )
    return scans


def measure_beside(address: str, large: bytes) -> dict[str, float]:
    small = [make_photo(index, *SMALL_PX) for index in range(NUM_BESIDE)]
    alone = send_all(restore, address, small, 1).percentile(95)
    load, was_beside = beside_a_scan(address, small, large)
    beside = load.percentile(95)
    note = "" if was_beside else " (the scan was done before)"
    print(f"\n512 x 512, 95th percentile alone {alone * 1000:.0f} ms, beside the scan {beside / alone:.2f} x{note}")
    return {"p95_alone_seconds": alone, "p95_beside_seconds": beside, "was_beside": was_beside}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--megapixels", type=float, nargs="+", default=[1, 12, 100], help="the last is the scan")
    names = [size.name for size in SIZES]
    arguments.add_argument("--sizes", nargs="+", choices=names, default=names, help="of photos sent several at a time")
    arguments.add_argument("--out", type=Path, default=Path("runs/serving"))
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    restorer = Restorer.load_newest(FolderStore(STORE))[0]
    assert restorer is not None
    large = {
        "of equal content": dict(map(mosaic_of, asked.megapixels)),
        "enlarged": {megapixels: make_photo(1, *sides_px(megapixels)) for megapixels in asked.megapixels},
    }
    sizes = [size for size in SIZES if size.name in asked.sizes]
    with running_service(max_queued_requests=2 * MOST_AT_A_TIME) as (address, pid):
        served = measure_rates(address, restorer, sizes)
        scans = {of_what: measure_scans(address, pid, of_what, photos) for of_what, photos in large.items()}
        beside = measure_beside(address, large["enlarged"][asked.megapixels[-1]])
    of_scans = {of_what: list(map(asdict, each)) for of_what, each in scans.items()}
    results = {"served": list(map(asdict, served)), "scans": of_scans, "beside": beside}
    (asked.out / "serving.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    plot(served, scans, asked.out / "serving.png")


if __name__ == "__main__":
    main()
