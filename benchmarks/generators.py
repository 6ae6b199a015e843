"""`python -m benchmarks.generators`: tiles a second of our generator and of the original's U-Net, in turns.

The original is run as its notebook does: eager, float32, batches of 8, every tile painted. Ours looks at every tile, in
batches of 8, and looks again at all of them and fills them, or at every tenth; as the service runs it, and otherwise:
in the other precision, by torch one layer after the other, and with `--compile` by torch.compile.

Times are of computing, not of waiting: processor time, which others on the machine hardly change. Prints a Markdown
table of medians over `--rounds`, in which every candidate has its turn.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from restoration.device import DeviceGenerator, Precision, choose_precision
from restoration.generator import DetectFill, Generator, Pix2Pix
from restoration.passes import look_turned
from restoration.release import list_releases, load_generator, read_release

STORE = Path(__file__).resolve().parent.parent / "model_store"
CPU = torch.device("cpu")
BATCH_SIZE, TILE_PX = 8, 256
TENTH = 10

Candidate = Callable[[Tensor, Tensor], object]


def newest_generator() -> Generator:
    return load_generator(read_release(STORE, list_releases(STORE)[-1]))


def ours(precision: Precision, *, compiles: bool = True) -> DeviceGenerator:
    return DeviceGenerator(newest_generator(), CPU, precision, batch_size=BATCH_SIZE, compiles=compiles)


def compiled(precision: Precision) -> DeviceGenerator:
    network = newest_generator()
    assert isinstance(network, DetectFill)
    for part in network.children():
        part.compile()
    return DeviceGenerator(network, CPU, precision, batch_size=BATCH_SIZE, compiles=False)


def original() -> Candidate:
    network = Pix2Pix().eval()

    def paint(tiles: Tensor, mask: Tensor) -> None:
        with torch.inference_mode():
            network.fill(tiles, mask)

    return paint


def all_of_it(generator: DeviceGenerator) -> Candidate:
    """What a damaged tile takes."""

    def restore(tiles: Tensor, mask: Tensor) -> None:
        generator.detect(tiles)
        for turn in range(generator.verifier_turns):
            look_turned(generator.verify, turn, tiles)
        generator.fill(tiles, mask)

    return restore


def detect_only(generator: DeviceGenerator) -> Candidate:
    return lambda tiles, mask: generator.detect(tiles)


def computing_seconds(candidate: Candidate, tiles: Tensor, mask: Tensor) -> float:
    """Of one thread, for a batch."""
    started_seconds = time.process_time()
    candidate(tiles, mask)
    return time.process_time() - started_seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--compile", action="store_true", help="needs a C++ compiler, and a minute")
    asked = arguments.parse_args()
    served = choose_precision(CPU)
    other: Precision = "float32" if served == "bfloat16" else "bfloat16"
    generator = ours(served)
    candidates = {
        "the original": original(),
        f"ours, as served ({served}, OpenVINO)": all_of_it(generator),
        "ours, detector alone": detect_only(generator),
        f"ours, {other}": all_of_it(ours(other)),
        "ours, by torch": all_of_it(by_torch := ours(served, compiles=False)),
        "ours, by torch, detector alone": detect_only(by_torch),
    }
    if asked.compile:
        candidates["ours, by torch.compile"] = all_of_it(compiled(served))
    rng = torch.Generator().manual_seed(0)
    tiles = torch.rand(BATCH_SIZE, 3, TILE_PX, TILE_PX, generator=rng)
    mask = (torch.rand(BATCH_SIZE, 1, TILE_PX, TILE_PX, generator=rng) < 0.1).float()
    for candidate in candidates.values():
        candidate(tiles, mask)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(asked.rounds):
        for name, candidate in candidates.items():
            seconds[name].append(computing_seconds(candidate, tiles, mask))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    slowest = medians["the original"]
    both, detector = (medians[name] for name in list(candidates)[1:3])
    medians["ours, every tenth tile damaged (from the two above)"] = detector + (both - detector) / TENTH
    print("| | computing, ms a tile | tiles a second over the original's |\n|---|---:|---:|")
    for name, median in medians.items():
        print(f"| {name} | {median / BATCH_SIZE * 1000:.1f} | {slowest / median:.1f} x |")


if __name__ == "__main__":
    main()
