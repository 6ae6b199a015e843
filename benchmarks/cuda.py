"""`python -m benchmarks.cuda`: what a GPU makes of the networks, of photos, and of the service.

Parts, each with a limit of its own, after which the next one has its turn:

- *networks*: computing alone, by the device's own clock, without copies: launched layer by layer and replayed as a
  graph, by the size of batches, in float32, and the original's U-Net as its notebook runs it;
- *calls*: tiles a second through `DeviceGenerator`, copies included, from one thread and from two; as it was with plain
  copies and launches, too;
- *served*: photos of 512 x 512 and of mixed sizes a second over the bare generator in one process, 8 and 16 at a time;
  the 95th percentile of a small photo's time beside the largest scan over that alone;
- *photos*: seconds a megapixel of `restore`, and the most memory of the device that it held;
- *compiled*: the networks by torch.compile, which takes longest to begin with.

Writes what there is so far into `cuda.json` in `--out`. `--device cpu` is for trying this very program.
"""

import argparse
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from benchmarks.generators import newest_generator
from benchmarks.load import send_all
from benchmarks.photos import make_photo
from benchmarks.running import restore, running_service
from benchmarks.serving import SMALL_PX, STORE, beside_a_scan, rate_of_bare_generator, sides_px
from restoration.cuda import BATCH_SIZE
from restoration.device import DeviceGenerator, Precision, choose_device, choose_precision
from restoration.generator import DetectFill, Generator
from restoration.photo import decode_photo
from restoration.pix2pix import Pix2Pix
from restoration.restorer import Restorer
from restoration.stores import FolderStore

TILE_PX = 256
NUM_TIMED = 15
CALL_SECONDS = 0.3
BATCH_SIZES = (BATCH_SIZE, 8, 64, 32)
CONCURRENCIES = (8, 16)
MIXED_PX = ((256, 256), (512, 512), (512, 768), (816, 1225))
MIB = 2**20

Network = Callable[..., Tensor]
Row = dict[str, object]


class TimeIsUp(Exception):
    """A part's limit."""


@dataclass
class Report:
    """Results by part; what is added is printed and written at once."""

    path: Path
    parts: dict[str, list[Row]] = field(default_factory=dict)
    _last: str = ""

    def add(self, part: str, /, **row: object) -> None:
        if part != self._last:
            print(f"\n{part}\n\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
        self._last = part
        self.parts.setdefault(part, []).append(row)
        print(f"| {' | '.join(f'{each:.4g}' if isinstance(each, float) else str(each) for each in row.values())} |")
        self.path.write_text(json.dumps(self.parts, indent=1), encoding="utf-8")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp in the main thread after so long."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def random_inputs(num_tiles: int, num_planes: int) -> dict[str, tuple[Tensor, ...]]:
    """By stage, on the CPU."""
    rng = torch.Generator().manual_seed(0)
    tiles = torch.rand(num_tiles, 3, TILE_PX, TILE_PX, generator=rng)
    mask = (torch.rand(num_tiles, 1, TILE_PX, TILE_PX, generator=rng) < 0.1).float()
    context = torch.rand(num_tiles, num_planes, TILE_PX // 2, TILE_PX // 2, generator=rng)
    return {"detect": (tiles,), "second look": (tiles, context), "fill": (tiles, mask, mask), "denoise": (tiles,)}


def stage_of(generator: Generator | DeviceGenerator, stage: str) -> Network:
    """Whatever looks again at a suspect tile."""
    looks_again = "verify" if generator.has_verifier else "detect"
    network: Network = getattr(generator, looks_again if stage == "second look" else stage)
    return network


# --- the device by itself ---------------------------------------------------------------------------------------------


def median_ms(run: Callable[[], object], device: torch.device) -> float:
    """Of the device's time, by its own clock; of a CPU's by the wall's."""
    for _ in range(3):
        run()
    if device.type != "cuda":
        started_seconds = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - started_seconds)
    begun, done = ([torch.cuda.Event(enable_timing=True) for _ in range(NUM_TIMED)] for _ in range(2))  # type: ignore[no-untyped-call]
    for index in range(NUM_TIMED):
        begun[index].record()
        run()
        done[index].record()
    torch.cuda.synchronize()
    spent_ms: list[float] = [before.elapsed_time(after) for before, after in zip(begun, done, strict=True)]
    return statistics.median(spent_ms)


def replayed(run: Callable[[], object]) -> Callable[[], object]:
    """The same as a graph; run before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def network_ms(
    network: Network, inputs: Sequence[Tensor], device: torch.device, precision: Precision, *, as_graph: bool
) -> float:
    on_device = [tiles.to(device).contiguous(memory_format=torch.channels_last) for tiles in inputs]

    def run() -> Tensor:
        return network(*on_device)

    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return median_ms(replayed(run) if as_graph else run, device)


def prepared_network(device: torch.device, precision: Precision) -> Generator:
    """As `DeviceGenerator` makes it ready."""
    return DeviceGenerator(newest_generator(), device, precision)._generator


def measure_networks(report: Report, device: torch.device, batch_sizes: Sequence[int]) -> None:
    served, is_gpu = choose_precision(device), device.type == "cuda"
    original = Pix2Pix().eval().to(device)
    with torch.inference_mode():
        for size in batch_sizes[:1] if not is_gpu else (8, BATCH_SIZE):
            tiles = torch.rand(size, 3, TILE_PX, TILE_PX, device=device) * 2 - 1
            spent_ms = median_ms(partial(original, tiles), device) / size
            report.add("networks", stage="the original", how="float32, launched", batch=size, ms_a_tile=spent_ms)
    generator = prepared_network(device, served)
    for size in batch_sizes:
        for stage, inputs in random_inputs(size, generator.num_context_planes).items():
            for as_graph in (False, True) if is_gpu else (False,):
                how = f"{served}, {'graph' if as_graph else 'launched'}"
                try:
                    spent_ms = network_ms(stage_of(generator, stage), inputs, device, served, as_graph=as_graph) / size
                except RuntimeError as error:  # what cannot be recorded
                    report.add("networks", stage=stage, how=f"{how}: {str(error)[:60]!r}", batch=size, ms_a_tile=0.0)
                    continue
                report.add("networks", stage=stage, how=how, batch=size, ms_a_tile=spent_ms)
    generator = prepared_network(device, "float32")
    size = batch_sizes[0]
    for stage in ("detect", "fill"):
        inputs = random_inputs(size, generator.num_context_planes)[stage]
        spent_ms = network_ms(stage_of(generator, stage), inputs, device, "float32", as_graph=is_gpu) / size
        report.add("networks", stage=stage, how="float32, as above", batch=size, ms_a_tile=spent_ms)


def measure_compiled(report: Report, device: torch.device, batch_size: int) -> None:
    network, precision = newest_generator(), choose_precision(device)
    assert isinstance(network, DetectFill)
    parts = {"detect": network.detector, "fill": network.filler}
    for part in parts.values():
        part.compile()
    generator = DeviceGenerator(network, device, precision)._generator
    for stage in parts:
        inputs = random_inputs(batch_size, generator.num_context_planes)[stage]
        started_seconds = time.perf_counter()
        spent_ms = network_ms(stage_of(generator, stage), inputs, device, precision, as_graph=device.type == "cuda")
        report.add(
            "compiled",
            stage=stage,
            batch=batch_size,
            ms_a_tile=spent_ms / batch_size,
            seconds_until_there=time.perf_counter() - started_seconds,
        )


# --- copies included --------------------------------------------------------------------------------------------------


class PlainCopies(DeviceGenerator):
    """Tiles copied from and to ordinary memory, while everything waits; layers launched one by one."""

    def _compute_batch(self, network: Network, batch_size: int, inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            on_device = [tiles.to(self.device).contiguous(memory_format=torch.channels_last) for tiles in inputs]
            return network(*on_device).float().cpu()


def tiles_per_second(call: Callable[[], object], num_tiles: int, num_threads: int) -> float:
    """From so many threads at once, each with `num_tiles` a call."""
    call()
    call()  # on the other stream
    give_up_at = time.perf_counter() + CALL_SECONDS

    def keep_calling() -> int:
        num_calls = 0
        while time.perf_counter() < give_up_at:
            call()
            num_calls += 1
        return num_calls

    started_seconds = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as threads:
        calls = [threads.submit(keep_calling) for _ in range(num_threads)]
        num_calls = sum(each.result() for each in calls)
    return num_calls * num_tiles / (time.perf_counter() - started_seconds)


def measure_calls(report: Report, device: torch.device, batch_sizes: Sequence[int]) -> None:
    precision = choose_precision(device)
    for size in batch_sizes:
        ways: dict[str, Callable[[int], DeviceGenerator]] = {
            "as served": lambda size: DeviceGenerator(newest_generator(), device, precision, batch_size=size)
        }
        if size == BATCH_SIZE:
            ways["launched"] = lambda size: DeviceGenerator(
                newest_generator(), device, precision, batch_size=size, uses_graphs=False
            )
            ways["launched, plain copies"] = lambda size: PlainCopies(
                newest_generator(), device, precision, batch_size=size
            )
        for how, make in ways.items():
            generator = make(size)
            for stage, inputs in random_inputs(size, generator.num_context_planes).items():
                network = stage_of(generator, stage)
                rates = [tiles_per_second(lambda: network(*inputs), size, num) for num in (1, 2)]  # noqa: B023
                report.add("calls", stage=stage, how=how, batch=size, one_thread=rates[0], two_threads=rates[1])


# --- photos -----------------------------------------------------------------------------------------------------------


@cache
def newest_restorer(device: torch.device) -> Restorer:
    return Restorer.load_newest(FolderStore(STORE), device=str(device))[0]


@cache
def make_scan(megapixels: float) -> bytes:
    return make_photo(1, *sides_px(megapixels))


def measure_photos(report: Report, device: torch.device, megapixels: Sequence[float]) -> None:
    """Without decoding and encoding. The last gives the memory."""
    restorer = newest_restorer(device)
    for each in megapixels:
        photo = decode_photo(make_scan(each))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started_seconds = time.perf_counter()
        restoration = restorer.restore(photo)
        seconds = time.perf_counter() - started_seconds
        stages: Mapping[str, float] = restoration.seconds
        report.add(
            "photos",
            megapixels=each,
            seconds_a_megapixel=seconds / each,
            by_stage=", ".join(f"{stage} {spent / each:.3f}" for stage, spent in stages.items()),
            device_mib=torch.cuda.max_memory_allocated() / MIB if device.type == "cuda" else 0.0,
            reserved_mib=torch.cuda.max_memory_reserved() / MIB if device.type == "cuda" else 0.0,
        )


def measure_served(report: Report, device: torch.device, num_photos: int, scan_megapixels: float) -> None:
    restorer = newest_restorer(device)
    of_one_size = [make_photo(index, *SMALL_PX) for index in range(1, 9)]
    mixed = [make_photo(index, *MIXED_PX[index % len(MIXED_PX)]) for index in range(1, 9)]
    scan = make_scan(scan_megapixels)
    with running_service(device=str(device), max_queued_requests=256) as (address, _):
        for size, photos in {"512 x 512": of_one_size, "mixed": mixed}.items():
            send_all(restore, address, photos, 8)
            rate_of_bare_generator(restorer, photos[:2])
            bare = rate_of_bare_generator(restorer, photos)
            for concurrency in CONCURRENCIES:
                load = send_all(restore, address, list(islice(cycle(photos), num_photos)), concurrency)
                report.add(
                    "served",
                    photos=size,
                    at_a_time=concurrency,
                    photos_a_second=load.photos_per_second,
                    over_bare=load.photos_per_second / bare,
                    p50_seconds=load.percentile(50),
                    p95_seconds=load.percentile(95),
                )
        few = list(islice(cycle(of_one_size), max(2, num_photos // 2)))
        alone = send_all(restore, address, few, 1).percentile(95)
        load, was_beside = beside_a_scan(address, few, scan, decode_seconds=scan_megapixels / 30)
        report.add(
            "beside a scan",
            megapixels=scan_megapixels,
            p95_alone_seconds=alone,
            p95_beside_over_alone=load.percentile(95) / alone,
            was_beside=was_beside,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--seconds", type=float, default=600.0, help="for all parts; each has a share of it")
    arguments.add_argument("--megapixels", type=float, nargs="+", default=[1, 12, 100], help="the last is the scan")
    arguments.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    arguments.add_argument("--photos", type=int, default=32, help="sent for each figure of the service's")
    arguments.add_argument("--out", type=Path, default=Path("runs/cuda"))
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    report, device = Report(asked.out / "cuda.json"), choose_device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    report.add("device", name=name, torch=torch.__version__, threads=torch.get_num_threads())
    parts: dict[str, tuple[float, Callable[[], None]]] = {
        "networks": (0.2, lambda: measure_networks(report, device, asked.batch_sizes)),
        "calls": (0.25, lambda: measure_calls(report, device, asked.batch_sizes)),
        "served": (0.45, lambda: measure_served(report, device, asked.photos, asked.megapixels[-1])),
        "photos": (0.4, lambda: measure_photos(report, device, asked.megapixels)),
        "compiled": (0.4, lambda: measure_compiled(report, device, asked.batch_sizes[0])),
    }
    give_up_at = time.monotonic() + asked.seconds
    for part, (share, measure) in parts.items():
        started_seconds = time.monotonic()
        try:
            with at_most(max(0.1, min(share * asked.seconds, give_up_at - started_seconds))):
                measure()
            left_out = ""
        except TimeIsUp:
            left_out = "time is up"
        except Exception as error:  # the others are worth having
            left_out = repr(error)[:300]
        report.add("parts", part=part, seconds=time.monotonic() - started_seconds, cut_short=left_out)


if __name__ == "__main__":
    main()
