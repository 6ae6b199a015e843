"""Who has the device when many threads restore at once, and what becomes of a run whose device fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from torch import Tensor

from archive.local import OwnThreadsGenerator
from restoration.device import DeviceGenerator
from restoration.generator import DetectFill, DetectFillConfig
from restoration.tile_generator import InFrontOf, TileGenerator

from .conftest import PHOTOS, Archive, files_of

CONFIG = DetectFillConfig(
    (8, 8, 8), (1,), (8, 8, 8), (1,), detector_context=2, verifier_channels=(8, 8, 8), verifier_dilations=(1,)
)


class TwoStreams(InFrontOf):
    """Computes two batches at a time, as a GPU does; one that waits in vain for another breaks the barrier."""

    calls_at_once = 2

    def __init__(self, generator: TileGenerator) -> None:
        self.generator = generator
        self.both_are_here = Barrier(2, timeout=20)

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        self.both_are_here.wait()
        return self.generator.verify(tiles, context)


@pytest.fixture
def bare() -> DeviceGenerator:
    torch.manual_seed(0)
    return DeviceGenerator(DetectFill(CONFIG), torch.device("cpu"), "float32")


@pytest.fixture
def two_streams(bare: DeviceGenerator) -> Iterator[OwnThreadsGenerator]:
    generator = OwnThreadsGenerator(TwoStreams(bare))
    yield generator
    generator.close()


def test_as_many_calls_are_made_at_once_as_the_device_works_for(
    two_streams: OwnThreadsGenerator, bare: DeviceGenerator
) -> None:
    tiles = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    context = torch.rand(4, 2, 32, 32, generator=torch.Generator().manual_seed(2))
    with ThreadPoolExecutor(4) as photos:
        verified = list(photos.map(two_streams.verify, tiles.split(1), context.split(1)))
    assert torch.cat(verified).equal(torch.cat(list(map(bare.verify, tiles.split(1), context.split(1)))))
    assert not torch.cat(verified).equal(bare.detect(tiles))


def test_a_device_that_works_for_one_call_gets_one_at_a_time(bare: DeviceGenerator) -> None:
    class OneStream(TwoStreams):
        calls_at_once = 1

    one_stream = OneStream(bare)
    one_stream.both_are_here = Barrier(2, timeout=0.2)
    generator = OwnThreadsGenerator(one_stream)
    with ThreadPoolExecutor(2) as photos, pytest.raises(BrokenBarrierError):
        list(photos.map(generator.verify, torch.zeros(2, 3, 64, 64).split(1)))
    generator.close()


def test_a_device_that_fails_stops_the_run_and_no_photo_is_blamed(
    archive: Archive, scans: Path, restored: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore of it")

    run = ("restore", scans, restored, "--local", "--model-store", store, "--exclude", "broken.png")
    with monkeypatch.context() as patched:
        patched.setattr(OwnThreadsGenerator, "detect", fail)
        code, _, told = archive(*run)
    assert code == 3
    assert "stopped: the device failed: CUDA error: an illegal memory access was encountered; run it again" in told
    assert "0 failed" in archive("status", restored)[1]
    assert archive(*run)[0] == 0
    assert files_of(restored).keys() == PHOTOS
