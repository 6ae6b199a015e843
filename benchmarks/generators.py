"""`python -m benchmarks.generators`: tiles a second of our generator and of the original's U-Net, in turns.

The original is run as its notebook does: eager, float32, batches of 8, every tile painted. Ours looks at every tile, in
batches of 8, and looks again at all of them and fills them, or at every tenth; as the service runs it, and otherwise:
in the other precisions that the processor has, and by torch, one layer after the other.

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
from restoration.generator import Generator
from restoration.passes import look_turned
from restoration.pix2pix import Pix2Pix
from restoration.release import Release, list_releases, load_generator, read_release
from restoration.restorer import Restorer

STORE = Path(__file__).resolve().parent.parent / "model_store"
CPU = torch.device("cpu")
BATCH_SIZE, TILE_PX = 8, 256
TENTH = 10

Candidate = Callable[[Tensor, Tensor], object]


def newest_release() -> Release:
    return read_release(STORE, list_releases(STORE)[-1])


def newest_generator() -> Generator:
    return load_generator(newest_release())


def served_in(precision: Precision) -> DeviceGenerator:
    return Restorer.load(newest_release(), device="cpu", precision=precision, batch_size=BATCH_SIZE).generator


def by_torch(precision: Precision) -> DeviceGenerator:
    return DeviceGenerator(newest_generator(), CPU, precision, batch_size=BATCH_SIZE, compiles=False)


def precisions_here() -> list[Precision]:
    """Those that are worth asking for on this processor: what `auto` takes first, then float32."""
    served = choose_precision(CPU)
    return [served, "float32"] if served != "float32" else [served]


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
    asked = arguments.parse_args()
    served, *others = precisions_here()
    generator, in_torch = served_in(served), by_torch("float32" if served == "int8" else served)
    candidates = {
        "the original": original(),
        f"ours, as served ({served}, OpenVINO)": all_of_it(generator),
        "ours, detector alone": detect_only(generator),
        **{f"ours, {other}": all_of_it(served_in(other)) for other in others},
        f"ours, by torch ({in_torch.precision})": all_of_it(in_torch),
        "ours, by torch, detector alone": detect_only(in_torch),
    }
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
