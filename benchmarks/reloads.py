"""`python -m benchmarks.reloads`: a release after the other, a thousand times, while photos are being restored.

An administrator activates the store's two newest releases in turn. Writes `reloads.csv` and `reloads.png` into `--out`:
the memory of the service and its workers after each, and what of it they allocated themselves. Ends with status 1 if an
activation or a photo failed.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks.photos import make_photo
from benchmarks.process_tree import MIB, anonymous_bytes, tree_bytes
from benchmarks.running import ANSWER_SECONDS, running_service
from restoration.release import list_releases

Held = tuple[float, float]
"""MiB of all processes, and what of it is anonymous."""
STORE = Path(__file__).resolve().parent.parent / "model_store"


def add_key(keys_file: Path) -> str:
    command = [sys.executable, "-m", "service", "keys", "add", "benchmark", "--file", str(keys_file)]
    made = subprocess.run(
        [*command, "--scope", "admin", "--scope", "restore"], check=True, capture_output=True, text=True
    )
    return made.stdout.strip()


def activate_in_turn(client: httpx.Client, pid: int, versions: Sequence[str], num: int) -> Iterator[Held]:
    """After each."""
    for index in range(num):
        client.post(f"/models/{versions[index % 2]}/activate").raise_for_status()
        yield tree_bytes(pid) / MIB, anonymous_bytes(pid) / MIB


def keep_restoring(client: httpx.Client, stop: threading.Event) -> Counter[tuple[int, str]]:
    """How many photos were answered, by status and release."""
    answered: Counter[tuple[int, str]] = Counter()
    photo = make_photo(1, 192, 256)
    while not stop.is_set():
        answer = client.post("/restore", content=photo)
        answered[answer.status_code, answer.headers.get("X-Model-Version", "none")] += 1
    return answered


def write(held: Sequence[Held], out: Path) -> None:
    from matplotlib.figure import Figure

    with (out / "reloads.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(number, *mib) for number, mib in enumerate(held, start=1)]
        csv.writer(file).writerows([("reloads", "memory_mib", "anonymous_mib"), *rows])
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    for held_mib, label in zip(zip(*held, strict=True), ("all", "without libraries"), strict=True):
        axes.plot(range(1, len(held) + 1), held_mib, label=label)
    axes.set(xlabel="reloads", ylabel="memory of all processes, MiB", ylim=(0, None))
    axes.legend()
    figure.savefig(out / "reloads.png", dpi=100)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--reloads", type=int, default=1000)
    arguments.add_argument("--store", type=Path, default=STORE)
    arguments.add_argument("--out", type=Path, default=Path("runs/reloads"))
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as caller:
        keys_file = Path(folder) / "keys.toml"
        headers = {"Authorization": f"Bearer {add_key(keys_file)}"}
        settings = {"api_keys_file": keys_file, "model_store": asked.store}
        with running_service(**settings) as (address, pid):
            client = httpx.Client(base_url=address, headers=headers, timeout=ANSWER_SECONDS)
            restoring = caller.submit(keep_restoring, client, stop)
            try:
                versions = list_releases(asked.store)[-2:]
                held = list(activate_in_turn(client, pid, versions, asked.reloads))
            finally:
                stop.set()
            answered = restoring.result()
    write(held, asked.out)
    for held_mib, what in zip(zip(*held, strict=True), ("memory", "of it without libraries"), strict=True):
        quarters = [float(np.mean(part)) for part in np.array_split(held_mib, 4)]
        print(f"{what}, in each quarter, mean: {', '.join(f'{mib:,.0f}' for mib in quarters)} MiB")
    for (status, version), num in sorted(answered.items()):
        print(f"{num} photos were answered with {status} by release {version}")
    return any(status != 200 for status, _ in answered)


if __name__ == "__main__":
    sys.exit(main())
