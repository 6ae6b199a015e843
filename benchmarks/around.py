"""`python -m benchmarks.around`: what a photo takes beside its networks: cutting, blending, grading, filling in.

On a GPU that is most of it. Here the networks' answers are recorded once, and then given at once to the very calls
that asked for them: so the maps, the suspects and what is filled are those of the newest release. Prints processor time
of one thread by stage, the least of `--rounds`: without decoding, encoding, and copies to a device and back. With
`--profile`, functions, the costliest first.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.generators import newest_generator
from benchmarks.photos import make_photo
from benchmarks.serving import sides_px
from restoration.cuda import BATCH_SIZE
from restoration.device import DeviceGenerator, choose_precision
from restoration.photo import Photo, decode_photo
from restoration.restorer import Restoration, RestoreOptions, restore_photo
from restoration.tile_generator import InFrontOf, TileGenerator

CPU = torch.device("cpu")


@dataclass
class Recorded(InFrontOf):
    """Passes calls on and keeps the answers, by stage; once it `replays`, gives them again. Batches are a GPU's."""

    generator: TileGenerator
    batch_size: int = BATCH_SIZE
    calls_at_once: int = 1
    replays: bool = False
    answers: dict[str, list[Tensor]] = field(default_factory=dict)
    _num_given: dict[str, int] = field(default_factory=dict)

    def replay(self) -> None:
        self.replays, self._num_given = True, {}

    @property
    def num_tiles(self) -> int:
        return sum(len(answer) for answers in self.answers.values() for answer in answers)

    def _answer(self, stage: str, call: Callable[[], Tensor]) -> Tensor:
        answers = self.answers.setdefault(stage, [])
        if not self.replays:
            answers.append(call().contiguous(memory_format=torch.channels_last))
        index = self._num_given.get(stage, 0)
        self._num_given[stage] = index + 1
        return answers[index]

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return self._answer("detect", lambda: self.generator.detect(tiles, context))

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return self._answer("verify", lambda: self.generator.verify(tiles, context))

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self._answer("fill", lambda: self.generator.fill(tiles, mask, conditions))

    def denoise(self, tiles: Tensor) -> Tensor:
        return self._answer("denoise", lambda: self.generator.denoise(tiles))


def replayed(photo: Photo, recorded: Recorded, options: RestoreOptions) -> tuple[float, Restoration]:
    """Seconds of processor time."""
    recorded.replay()
    started_seconds = time.process_time()
    restoration = restore_photo(photo, recorded, options)
    return time.process_time() - started_seconds, restoration


def row(megapixels: float, num_tiles: int, seconds: float, stages: Mapping[str, float]) -> str:
    """Of a table; stages: in seconds of the wall's clock."""
    by_stage = ", ".join(f"{stage} {1000 * spent / megapixels:.0f}" for stage, spent in stages.items())
    a_megapixel, a_tile = 1000 * seconds / megapixels, 1000 * seconds / num_tiles
    return f"| {megapixels:g} | {num_tiles / megapixels:.0f} | {a_megapixel:.0f} | {a_tile:.2f} | {by_stage} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--megapixels", type=float, nargs="+", default=[0.26, 1, 12])
    arguments.add_argument("--denoise", type=float, default=0.0)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--profile", action="store_true")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    generator = DeviceGenerator(newest_generator(), CPU, choose_precision(CPU))
    options = RestoreOptions(denoise=asked.denoise)
    print("| megapixels | tiles/megapixel | ms/megapixel | ms/tile | by the wall's clock |\n|---:|---:|---:|---:|---|")
    for megapixels in asked.megapixels:
        photo = decode_photo(make_photo(1, *sides_px(megapixels)))
        recorded = Recorded(generator)
        restore_photo(photo, recorded, options)
        rounds = [replayed(photo, recorded, options) for _ in range(asked.rounds)]
        seconds, restoration = min(rounds, key=lambda each: each[0])
        print(row(megapixels, recorded.num_tiles, seconds, restoration.seconds), flush=True)
        if asked.profile:
            with cProfile.Profile() as profile:
                replayed(photo, recorded, options)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
