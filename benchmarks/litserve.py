"""`python -m benchmarks.litserve`: the service and LitServe with the same generator, in turns on the same cores.

LitServe runs `benchmarks.litserve_server` in several set-ups, of which the best is what counts. Both are sent the same
photos as the multipart field `image`, so many at a time: of one size, and mixed, many small and few large.

Prints a Markdown table of photos a second and latencies, medians over `--rounds` in which every server has its turn,
and how many of the answers are ours byte for byte; writes `litserve.json` into `--out`.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from benchmarks.load import send_all
from benchmarks.photos import make_photo
from benchmarks.running import ANSWER_SECONDS, free_port, running_service, wait_until_ready

NUM_CORES = len(os.sched_getaffinity(0))
LITSERVE_SETUPS = {
    "LitServe, 1 worker, batches of 8": (1, 8),
    f"LitServe, {NUM_CORES} workers, one by one": (NUM_CORES, 1),
    f"LitServe, {NUM_CORES} workers, batches of 4": (NUM_CORES, 4),
}
"""Workers, photos in a batch. Workers share the cores out between them."""
ONE_SIZE = ((512, 512),) * 48
MIXED_SIZES = ((256, 256),) * 48 + ((512, 512),) * 24 + ((1633, 2449),) * 3
"""Height and width in pixels."""

Server = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class Measured:
    photos_per_second: float
    p50_seconds: float
    p95_seconds: float


def make_load(sizes_px: Sequence[tuple[int, int]]) -> list[bytes]:
    photos = [make_photo(index, *size_px) for index, size_px in enumerate(sizes_px)]
    return [photos[index] for index in np.random.default_rng(0).permutation(len(photos))]


@contextmanager
def ours() -> Iterator[str]:
    with running_service() as (address, _):
        yield address


@contextmanager
def litserve(num_workers: int, batch_size: int) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.litserve_server"]
    command += ["--port", str(port), "--workers", str(num_workers), "--batch", str(batch_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, NUM_CORES // num_workers))}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its processes outlive it otherwise
        server.wait()


def send_form(client: httpx.Client, address: str, photo: bytes) -> float:
    """Seconds from request to answer."""
    started_seconds = time.perf_counter()
    ask(client, address, photo)
    return time.perf_counter() - started_seconds


def ask(client: httpx.Client, address: str, photo: bytes) -> bytes:
    """What became of the photo. LitServe would compress its answers for whoever accepts that."""
    headers = {"Accept-Encoding": "identity"}
    answer = client.post(f"{address}/restore", files={"image": ("photo.jpg", photo)}, headers=headers)
    return answer.raise_for_status().content


def digests_of(address: str, photos: Sequence[bytes]) -> list[str]:
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        return [hashlib.sha256(ask(client, address, photo)).hexdigest() for photo in photos]


def measure(address: str, photos: Sequence[bytes], concurrency: int) -> Measured:
    load = send_all(send_form, address, photos, concurrency)
    return Measured(load.photos_per_second, load.percentile(50), load.percentile(95))


def median_of(measured: Sequence[Measured]) -> Measured:
    return Measured(
        *(statistics.median(column) for column in zip(*(vars(each).values() for each in measured), strict=True))
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--concurrency", type=int, default=16)
    arguments.add_argument("--setups", default="", help="LitServe's whose names hold this; all by default")
    arguments.add_argument("--out", type=Path, default=Path("runs/litserve"))
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    loads = {"512 x 512": make_load(ONE_SIZE), "mixed sizes": make_load(MIXED_SIZES)}
    to_compare = loads["512 x 512"][:8]
    servers: dict[str, Server] = {"ours": ours}
    servers |= {name: partial(litserve, *setup) for name, setup in LITSERVE_SETUPS.items() if asked.setups in name}
    measured: dict[str, dict[str, list[Measured]]] = {load: {name: [] for name in servers} for load in loads}
    digests: dict[str, list[str]] = {}
    for _ in range(asked.rounds):
        for name, server in servers.items():
            with server() as address:
                digests[name] = digests_of(address, to_compare)  # and it is warm then
                for load, photos in loads.items():
                    measured[load][name].append(measure(address, photos, asked.concurrency))
                    print(load, name, measured[load][name][-1], file=sys.stderr, flush=True)
    print("| | | photos/s | median | 95th percentile |\n|---|---|---:|---:|---:|")
    medians = {load: {name: median_of(each) for name, each in of_load.items()} for load, of_load in measured.items()}
    for load, of_load in medians.items():
        for name, row in of_load.items():
            print(
                f"| {load} | {name} | {row.photos_per_second:.2f} | {row.p50_seconds:.2f} s | {row.p95_seconds:.2f} s |"
            )
    for name, found in digests.items():
        num_alike = sum(ours == theirs for ours, theirs in zip(digests["ours"], found, strict=True))
        print(f"\n{name}: {num_alike} of {len(found)} answers are ours byte for byte")
    results = {load: {name: asdict(row) for name, row in of_load.items()} for load, of_load in medians.items()}
    (asked.out / "litserve.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
