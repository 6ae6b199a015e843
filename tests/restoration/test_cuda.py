"""On a GPU; skipped where there is none. `python -m benchmarks.cuda` has the figures."""

import gc
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restoration.cuda import NUM_AT_ONCE
from restoration.device import DeviceGenerator, Precision
from restoration.photo import decode_photo
from restoration.release import list_releases, load_generator, read_release
from restoration.restorer import Restorer
from restoration.tensors import stack_tiles

from .small_generator import encode

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")

REPOSITORY = Path(__file__).resolve().parents[2]
STORE = REPOSITORY / "model_store"
VERSIONS = list_releases(STORE)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TILE_PX = 256
Stage = Callable[[DeviceGenerator, slice], Tensor]


@cache
def restorer_of(version: str) -> Restorer:
    return Restorer.load(read_release(STORE, version), device="cuda")


@pytest.fixture
def restorer() -> Restorer:
    return restorer_of(VERSIONS[-1])


def scratched_samples() -> np.ndarray:
    """(512, 512, 3) uint8: a photograph with a white scratch and a dark one."""
    samples = data.astronaut().copy()
    for step in range(480):
        samples[16 + step, 10 + step : 14 + step] = 245
        samples[100 + step // 2, 500 - step : 503 - step] = 20
    return samples


def tiles_of_photo() -> Tensor:
    """(9, 3, T, T), overlapping by half."""
    samples, starts = scratched_samples(), (0, 128, 256)
    return stack_tiles([samples[top : top + TILE_PX, left : left + TILE_PX] for top in starts for left in starts])


TILES = tiles_of_photo()
MASK = (TILES.mean(dim=1, keepdim=True) > 0.9).float()


def context_of(generator: DeviceGenerator) -> Tensor:
    return TILES[:, :1, ::2, ::2].expand(-1, generator.num_context_planes, -1, -1)


def look_again(generator: DeviceGenerator, some: slice, *, is_told: bool) -> Tensor:
    looks = generator.verify if generator.has_verifier else generator.detect
    return looks(TILES[some], context_of(generator)[some] if is_told else None)


STAGES: dict[str, Stage] = {
    "detect": lambda generator, some: generator.detect(TILES[some]),
    "detect, told of a smaller copy": lambda generator, some: generator.detect(
        TILES[some], context_of(generator)[some]
    ),
    "second look": partial(look_again, is_told=False),
    "second look, told of a smaller copy": partial(look_again, is_told=True),
    "fill": lambda generator, some: generator.fill(TILES[some], MASK[some], MASK[some]),
    "denoise": lambda generator, some: generator.denoise(TILES[some]),
}
ALL = slice(None)


def generator_of(device: torch.device, precision: Precision, **how: object) -> DeviceGenerator:
    return DeviceGenerator(load_generator(read_release(STORE, VERSIONS[-1])), device, precision, **how)


@cache
def exact_generator() -> DeviceGenerator:
    return generator_of(CPU, "float32")


@pytest.mark.parametrize("version", VERSIONS)
def test_releases_pass_their_self_test(version: str) -> None:
    loaded = restorer_of(version)
    assert (loaded.device.type, loaded.generator.num_size_changes) == ("cuda", 0)


def test_the_newest_release_passes_its_self_test_in_float32() -> None:
    loaded = Restorer.load(read_release(STORE, VERSIONS[-1]), device="cuda", precision="float32")
    assert loaded.precision == "float32"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_a_tile_gets_the_same_bits_in_any_batch_and_each_time(restorer: Restorer, stage: Stage) -> None:
    together = stage(restorer.generator, ALL)
    for some in (slice(0, 1), slice(3, 5), slice(8, 9), slice(1, 9), ALL):
        assert torch.equal(stage(restorer.generator, some), together[some])


def test_a_tile_gets_the_same_bits_whoever_computes_beside_it(restorer: Restorer) -> None:
    alone = {name: stage(restorer.generator, ALL) for name, stage in STAGES.items()}
    asked = [(name, slice(first, first + 3)) for name in STAGES for first in range(6)] * 3
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda each: STAGES[each[0]](restorer.generator, each[1]), asked))
    assert all(torch.equal(answer, alone[name][some]) for answer, (name, some) in zip(found, asked, strict=True))


def test_more_tiles_than_a_batch_are_split(restorer: Restorer) -> None:
    many = TILES.repeat(8, 1, 1, 1)
    assert len(many) > 2 * restorer.generator.batch_size
    assert torch.equal(restorer.generator.detect(many)[-9:], restorer.generator.detect(TILES))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_graphs_give_the_bits_that_launches_give(precision: Precision) -> None:
    recorded, launched = (generator_of(CUDA, precision, uses_graphs=uses) for uses in (True, False))
    for stage in STAGES.values():
        for _ in range(3):  # on either stream, and once it is replayed
            assert torch.equal(stage(recorded, ALL), stage(launched, ALL))


@pytest.mark.parametrize("name", STAGES)
def test_networks_can_be_recorded(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        STAGES[name](generator_of(CUDA, "bfloat16"), ALL)
    assert not caplog.messages


def test_nothing_is_left_to_be_recorded_once_a_release_is_loaded(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restoration.cuda._Batch", None)
    for stage in STAGES.values():
        for _ in range(NUM_AT_ONCE):
            stage(restorer.generator, ALL)


@pytest.mark.parametrize(("precision", "most_levels"), [("bfloat16", 0.6), ("float32", 0.1)])
def test_answers_are_near_the_cpus(precision: Precision, most_levels: float) -> None:
    """Means, in levels of 255, over nine tiles of a scratched photograph: bfloat16 rounds a picture to half a level."""
    generator = generator_of(CUDA, precision)
    for name, stage in STAGES.items():
        difference = (stage(generator, ALL) - stage(exact_generator(), ALL)).abs()
        if name == "fill":
            difference = difference.mul(MASK).sum(dim=(1, 2, 3)) / (3 * MASK.sum(dim=(1, 2, 3))).clamp(min=1)
        assert 255 * difference.mean() < most_levels, name


def test_a_photo_is_restored_alike_each_time_and_nearly_as_on_the_cpu(restorer: Restorer) -> None:
    photo = decode_photo(encode(scratched_samples()))
    first, again = restorer.restore(photo), restorer.restore(photo)
    assert np.array_equal(first.samples, again.samples)
    assert np.array_equal(first.damage_map, again.damage_map)
    on_cpu = Restorer(restorer.release, exact_generator()).restore(photo)
    differences = np.abs(first.damage_map.astype(int) - on_cpu.damage_map)
    assert (differences > 32).mean() < 0.01  # what has just too little evidence on one has enough on the other
    both = first.mask & on_cpu.mask
    assert both.sum() > 1000
    assert np.abs(first.samples[both].astype(int) - on_cpu.samples[both]).mean() < 2.5
    assert np.array_equal(first.samples[~first.mask], photo.samples[~first.mask])


def test_a_copy_gives_the_same_bits(restorer: Restorer) -> None:
    copy = pickle.loads(pickle.dumps(restorer.generator))
    assert torch.equal(copy.detect(TILES), restorer.generator.detect(TILES))


@pytest.fixture
def limit_memory() -> Iterator[Callable[[int], None]]:
    """Allow this process so many bytes more than it has."""

    def limit(num_bytes: int) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + num_bytes
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("uses_graphs", [True, False])
def test_a_batch_that_memory_does_not_hold_is_halved(
    limit_memory: Callable[[int], None], restorer: Restorer, uses_graphs: bool
) -> None:
    generator = generator_of(CUDA, "bfloat16", batch_size=512, uses_graphs=uses_graphs)
    limit_memory(600 * 2**20)  # 512 tiles alone are 384 MiB, and what the network makes of them many times that
    answers = stage_of_all(generator)
    assert generator.batch_size < 512
    assert generator.num_size_changes >= 1
    for answer, expected in zip(answers, stage_of_all(restorer.generator), strict=True):
        assert 255 * (answer - expected).abs().mean() < 0.6
    kept = generator.batch_size
    assert all(torch.equal(*each) for each in zip(answers, stage_of_all(generator), strict=True))
    assert generator.batch_size == kept
    torch.cuda.set_per_process_memory_fraction(1.0)
    generator.use_full_batches()
    generator.detect(TILES)
    assert generator.batch_size == 512


def stage_of_all(generator: DeviceGenerator) -> list[Tensor]:
    """Asked twice if batches became smaller meanwhile: of one size all."""
    answers = [stage(generator, ALL) for stage in STAGES.values()]
    return [stage(generator, ALL) for stage in STAGES.values()] if generator.num_size_changes else answers


def test_a_release_that_is_dropped_gives_its_memory_back() -> None:
    held = []
    for _ in range(3):
        generator_of(CUDA, "bfloat16").warm_up(TILE_PX)
        gc.collect()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert max(held) - min(held) < 64 * 2**20  # a library's workspace; a generator's graphs hold several times that


LOSE_THE_DEVICE = """
import torch
from restoration.device import DeviceGenerator
from restoration.architectures import build_generator

class AssertsOnTheDevice(type(build_generator("detect-fill", {}))):
    def detect(self, tiles, context=None):
        found = super().detect(tiles)
        past_the_end = (tiles[:, 0, 0, 0] * 1000).long()
        return found + torch.arange(4, device=tiles.device)[past_the_end].view(-1, 1, 1, 1)

generator = DeviceGenerator(AssertsOnTheDevice(), torch.device("cuda"), "bfloat16", uses_graphs=USES_GRAPHS)
generator.detect(torch.zeros(1, 3, 256, 256))
for tiles in (torch.ones(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)):
    try:
        generator.detect(tiles)
    except torch.AcceleratorError as error:
        print(str(error).partition("\\n")[0])
"""


@pytest.mark.parametrize("uses_graphs", [True, False])
def test_a_device_that_is_lost_is_told_from_other_errors_and_the_process_lives(uses_graphs: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSE_THE_DEVICE.replace("USES_GRAPHS", str(uses_graphs))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "CUDA error: device-side assert triggered\n" * 2, done.stderr
