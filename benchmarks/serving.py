"""`python -m benchmarks.serving`: the service over HTTP, against the bare generator on the same cores.

Starts `python -m service` on a free port, with the newest release, and prints a Markdown table:

- photos a second at several concurrencies, over what decoding, restoring and encoding the same photos one after the
  other in one process gives;
- the 95th percentile of a 512 x 512 photo's time while a large scan is being restored, over that alone;
- seconds a megapixel from small to large, and the service's peak memory.

Photographs are scikit-image's, enlarged, with scratches drawn on; an eighth of them has none.
"""

import argparse
import io
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from restoration.photo import decode_photo, encode_photo
from restoration.restorer import Restorer

STORE = Path(__file__).resolve().parent.parent / "model_store"
SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
CONCURRENCIES = (1, 8, 32)
START_SECONDS = 300.0
ANSWER_SECONDS = 900.0


def make_photo(index: int, height_px: int, width_px: int) -> bytes:
    """A JPEG of a sample photograph of that size, with a few scratches, or none every eighth time."""
    photo = Image.fromarray(getattr(data, SAMPLES[index % len(SAMPLES)])()).resize((width_px, height_px))
    draw, rng = ImageDraw.Draw(photo), np.random.default_rng(index)
    for _ in range(rng.integers(2, 6) if index % 8 else 0):
        ends = rng.uniform(0, 1, (2, 2)) * (width_px, height_px)
        draw.line([tuple(end) for end in ends], fill=(245, 242, 235), width=max(2, min(photo.size) // 250))
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG", quality=92)
    return encoded.getvalue()


@contextmanager
def running_service() -> Iterator[tuple[str, int]]:
    """The service's address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "RESTORE_PORT": str(port),
        "RESTORE_LOG_LEVEL": "warning",
        "RESTORE_DEADLINE_SECONDS": str(ANSWER_SECONDS),
    }
    service = subprocess.Popen([sys.executable, "-m", "service"], env={**os.environ, **settings})
    try:
        address = f"http://127.0.0.1:{port}"
        give_up_at = time.monotonic() + START_SECONDS
        while not is_ready(address):
            if service.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError("the service did not start; see its log above")
            time.sleep(0.2)
        yield address, service.pid
    finally:
        service.terminate()
        service.wait()


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def restore(client: httpx.Client, address: str, photo: bytes) -> float:
    """Seconds from request to answer."""
    started_seconds = time.perf_counter()
    client.post(f"{address}/restore", content=photo).raise_for_status()
    return time.perf_counter() - started_seconds


def rate_of_bare_generator(photos: list[bytes]) -> float:
    """Photos a second, one after the other in this process."""
    restorer = Restorer.load_newest(STORE)[0]
    assert restorer is not None
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


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photos", type=int, default=48, help="photos of 512 x 512 for the rates")
    arguments.add_argument("--megapixels", type=int, nargs="+", default=[1, 12, 48, 100], help="the last is the scan")
    asked = arguments.parse_args()
    photos = [make_photo(index, 512, 512) for index in range(asked.photos)]
    scans = {
        size: make_photo(1, round((size * 2 / 3 * 1e6) ** 0.5), round((size * 3 / 2 * 1e6) ** 0.5))
        for size in asked.megapixels
    }
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
        for size, scan in scans.items():
            seconds = restore(client, address, scan)
            print(
                f"| {size} megapixels | {seconds / size:.2f} s/megapixel, peak memory {peak_mib(pid):,.0f} MiB |",
                flush=True,
            )
        beside, was_beside = p95_beside_a_scan(address, photos, scan, 20)
        note = "" if was_beside else " (the scan was done before)"
        print(f"| 512 x 512, 95th percentile alone | {alone * 1000:.0f} ms |")
        print(f"| beside the {asked.megapixels[-1]}-megapixel scan | {beside / alone:.2f} x{note} |")


if __name__ == "__main__":
    main()
