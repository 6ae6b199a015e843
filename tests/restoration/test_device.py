import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from restoration.architectures import build_generator
from restoration.device import DeviceGenerator, choose_batch_size, choose_device, choose_precision
from restoration.errors import InvalidOption
from restoration.generator import DetectFill
from restoration.release import Release
from restoration.restorer import Restorer

from .small_generator import make_generator

CPU = torch.device("cpu")


def random_tiles(num_tiles: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(num_tiles, 3, 256, 256, generator=torch.Generator().manual_seed(seed))


def striped_mask(num_tiles: int) -> torch.Tensor:
    mask = torch.zeros(num_tiles, 1, 256, 256)
    mask[..., ::3] = 1.0
    return mask


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_tile_gets_the_same_bits_in_any_batch(precision):
    tiles, mask = random_tiles(8), striped_mask(8)
    generator = DeviceGenerator(make_generator(), CPU, precision, batch_size=8)
    maps, pictures = generator.detect(tiles), generator.fill(tiles, mask)
    for num_tiles in (1, 2, 3, 4, 5, 7):
        some = slice(8 - num_tiles, 8)
        assert torch.equal(generator.detect(tiles[some]), maps[some])
        assert torch.equal(generator.fill(tiles[some], mask[some]), pictures[some])


def test_more_tiles_than_a_batch_are_split():
    tiles, generator = random_tiles(5), make_generator()
    small = DeviceGenerator(generator, CPU, "float32", batch_size=2)
    large = DeviceGenerator(make_generator(), CPU, "float32", batch_size=8)
    assert torch.equal(small.detect(tiles), large.detect(tiles))


class HoldsThree(DetectFill):
    """Its device's memory holds three tiles and no more."""

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        if len(tiles) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles.mean(dim=1, keepdim=True)


def test_a_batch_that_memory_does_not_hold_is_halved_and_batches_stay_so_until_there_may_be_more():
    tiles, generator = random_tiles(8), DeviceGenerator(HoldsThree(), CPU, "float32", batch_size=8)
    for _ in range(2):
        assert torch.equal(generator.detect(tiles), tiles.mean(dim=1, keepdim=True))
        assert (generator.batch_size, generator.num_size_changes) == (2, 2)
    generator.use_full_batches()
    assert (generator.batch_size, generator.num_size_changes) == (8, 3)
    generator.use_full_batches()
    assert generator.num_size_changes == 3


def test_threads_whose_batches_do_not_fit_at_once_halve_them_once():
    tiles, both_hold = random_tiles(8), threading.Barrier(2)

    class HoldsFour(DetectFill):
        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            if len(tiles) > 4:
                both_hold.wait(30)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return tiles.mean(dim=1, keepdim=True)

    generator = DeviceGenerator(HoldsFour(), CPU, "float32", batch_size=8)
    with ThreadPoolExecutor(2) as threads:
        for maps in threads.map(generator.detect, [tiles, tiles]):
            assert torch.equal(maps, tiles.mean(dim=1, keepdim=True))
    assert (generator.batch_size, generator.num_size_changes) == (4, 1)


def test_the_size_of_batches_is_part_of_the_arithmetic_where_it_changes_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    small, large = (DeviceGenerator(make_generator(), CPU, "bfloat16", batch_size=size) for size in (2, 8))
    assert small.arithmetic == large.arithmetic == "cpu bfloat16"
    small.device = large.device = torch.device("cuda")
    assert (small.arithmetic, large.arithmetic) == ("a card bfloat16, batches of 2", "a card bfloat16, batches of 8")


def test_a_single_tile_that_memory_does_not_hold_is_an_error():
    class HoldsNothing(DetectFill):
        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        DeviceGenerator(HoldsNothing(), CPU, "float32").detect(random_tiles(1))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_results_are_float32_pictures_in_range(precision):
    generator = DeviceGenerator(make_generator(), CPU, precision)
    tiles = random_tiles(1)
    damage_map, picture = generator.detect(tiles), generator.fill(tiles, striped_mask(1))
    assert damage_map.shape == (1, 1, 256, 256)
    assert picture.shape == (1, 3, 256, 256)
    for result in (damage_map, picture):
        assert result.dtype == torch.float32
        assert 0.0 <= result.min() <= result.max() <= 1.0


@pytest.mark.parametrize(("architecture", "config"), [("detect-fill", {}), ("pix2pix", {"channels": 8})])
def test_bfloat16_is_close_to_float32(architecture, config):
    generators = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        generators.append(DeviceGenerator(build_generator(architecture, config), CPU, precision))
    tiles, mask = random_tiles(1), striped_mask(1)
    exact, rounded = (generator.fill(tiles, mask) for generator in generators)
    assert (exact - rounded).abs().mean() < 1.5 / 255
    assert not torch.equal(exact, rounded)


def test_batch_norm_keeps_its_statistics_in_float32():
    generator = build_generator("pix2pix", {"channels": 8})
    DeviceGenerator(generator, CPU, "bfloat16")
    assert generator.downs[1][1].running_mean.dtype == torch.float32
    assert generator.downs[1][0].weight.dtype == torch.bfloat16


def test_auto_finds_a_device_and_a_precision():
    device = choose_device("auto")
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_precision(device, "auto") in ("bfloat16", "float32", "int8")


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"avx512_bf16", "avx512_vnni"}, "bfloat16"),
        ({"amx_bf16"}, "bfloat16"),
        ({"avx512_vnni"}, "int8"),
        ({"avx_vnni"}, "int8"),
        ({"avx2"}, "float32"),
    ],
)
def test_auto_is_what_the_processor_has_instructions_for(
    capabilities: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    assert choose_precision(CPU) == chosen


def test_int8_is_refused_where_it_would_gain_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    assert choose_precision(CPU, "int8") == "int8"
    with pytest.raises(InvalidOption, match="int8"):
        choose_precision(torch.device("cuda"), "int8")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(InvalidOption, match="no instructions"):
        choose_precision(CPU, "int8")


def test_a_precision_that_was_asked_for_is_used():
    assert choose_precision(CPU, "float32") == "float32"
    assert choose_precision(CPU, "bfloat16") == "bfloat16"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "mps", "meta"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(InvalidOption, match="device"):
        choose_device(name)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidOption, match="float16"):
        choose_precision(CPU, "float16")


def test_a_gpu_has_larger_batches_unless_told_otherwise(release: Release):
    assert choose_batch_size(torch.device("cuda")) > choose_batch_size(CPU) == 8
    for asked, had in ((0, 8), (3, 3)):
        assert Restorer.load(release, device="cpu", batch_size=asked).generator.batch_size == had


def test_an_empty_batch_size_is_refused():
    with pytest.raises(InvalidOption, match="batch_size"):
        DeviceGenerator(make_generator(), CPU, "float32", batch_size=0)
