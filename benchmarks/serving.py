"""`python -m benchmarks.serving`: the service over HTTP, against the bare generator on the same cores.

Starts `python -m service` on a free port, with the newest release, and prints a Markdown table:

- photos a second at several concurrencies, over what decoding, restoring and encoding the same photos one after the
  other in one process gives;
- the 95th percentile of a 512 x 512 photo's time while a large scan is being restored, over that alone;
- seconds a megapixel from small to large, as JPEG, and the largest as TIFF, too; how many tiles that took, since the
  same scratches lie on a larger share of a small photo's tiles, and each suspect tile is looked at four times more;
- the most memory that the service held meanwhile, its processes that decode and encode and what they share included.

Photographs are scikit-image's, enlarged, with scratches drawn on; an eighth of them has none.
"""

import argparse
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.photos import make_photo, make_tiff
from benchmarks.process_tree import MemoryWatch
from benchmarks.running import ANSWER_SECONDS, restore, running_service
from restoration.photo import decode_photo, encode_photo
from restoration.restorer import Restorer
from restoration.stores import FolderStore

STORE = Path(__file__).resolve().parent.parent / "model_store"
CONCURRENCIES = (1, 8, 32)


def rate_of_bare_generator(photos: list[bytes]) -> float:
    """Photos a second, one after the other in this process."""
    restorer, _ = Restorer.load_newest(FolderStore(STORE))
    started_seconds = time.perf_counter()
    for encoded in photos:
        photo = decode_photo(encoded)
        encode_photo(photo, restorer.restore(photo).samples)
    return len(photos) / (time.perf_counter() - started_seconds)


def rate_of_service(address: str, photos: list[bytes], concurrency: int) -> float:
    with httpx.Client(timeout=ANSWER_SECONDS) as client, ThreadPoolExecutor(concurrency) as callers:
        started_seconds = time.perf_counter()
        list(callers.map(lambda photo: restore(client, address, photo), photos))
        return len(photos) / (time.perf_counter() - started_seconds)


def p95_of_small(address: str, photos: list[bytes], num: int) -> float:
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        seconds = [restore(client, address, photos[index % len(photos)]) for index in range(num)]
    return statistics.quantiles(seconds, n=20)[-1]


def p95_beside_a_scan(address: str, photos: list[bytes], scan: bytes, num: int) -> tuple[float, bool]:
    """And whether the scan was in the works all the time, without which the figure means nothing."""
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        scanning = threading.Thread(target=restore, args=(client, address, scan))
        scanning.start()
        time.sleep(3.0)
        p95 = p95_of_small(address, photos, num)
        was_beside = scanning.is_alive()
        scanning.join()
    return p95, was_beside


def count_tiles(client: httpx.Client, address: str) -> float:
    """Computed since the start, of both stages."""
    text = client.get(f"{address}/metrics").text
    return sum(map(float, re.findall(r"^restore_tiles_total\{.*?\} (\S+)$", text, re.MULTILINE)))


def row_of_scan(client: httpx.Client, address: str, pid: int, name: str, megapixels: int, scan: bytes) -> str:
    num_before = count_tiles(client, address)
    with MemoryWatch.over(pid) as memory:
        seconds = restore(client, address, scan)
    num_tiles = count_tiles(client, address) - num_before
    return (
        f"| {megapixels} megapixels, {name} | {seconds / megapixels:.2f} s/megapixel, {num_tiles / megapixels:.0f} "
        f"tiles/megapixel, {seconds / num_tiles * 1000:.1f} ms/tile, peak memory {memory.peak_mib:,.0f} MiB |"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photos", type=int, default=48, help="photos of 512 x 512 for the rates")
    arguments.add_argument("--megapixels", type=int, nargs="+", default=[1, 12, 48, 100], help="the last is the scan")
    asked = arguments.parse_args()
    photos = [make_photo(index, 512, 512) for index in range(asked.photos)]
    sides_px = [
        (size, round((size * 2 / 3 * 1e6) ** 0.5), round((size * 3 / 2 * 1e6) ** 0.5)) for size in asked.megapixels
    ]
    scans = [("JPEG", size, make_photo(1, height_px, width_px)) for size, height_px, width_px in sides_px]
    scans.append(("TIFF", sides_px[-1][0], make_tiff(1, *sides_px[-1][1:])))
    bare = rate_of_bare_generator(photos)
    print("| what | measured |\n|---|---:|", flush=True)
    print(f"| bare generator, 512 x 512 | {bare:.1f} photos/s |", flush=True)
    with running_service() as (address, pid), httpx.Client(timeout=ANSWER_SECONDS) as client:
        for concurrency in CONCURRENCIES:
            rate = rate_of_service(address, photos, concurrency)
            print(
                f"| served, {concurrency} at a time | {rate:.1f} photos/s, {rate / bare:.2f} of the bare generator |",
                flush=True,
            )
        alone = p95_of_small(address, photos, 40)
        for name, size, scan in scans:
            print(row_of_scan(client, address, pid, name, size, scan), flush=True)
        beside, was_beside = p95_beside_a_scan(address, photos, scan, 20)
        note = "" if was_beside else " (the scan was done before)"
        print(f"| 512 x 512, 95th percentile alone | {alone * 1000:.0f} ms |")
        print(f"| beside the {asked.megapixels[-1]}-megapixel scan | {beside / alone:.2f} x{note} |")


if __name__ == "__main__":
    main()
