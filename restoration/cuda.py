"""Batches on a CUDA device: of one shape, copied through pinned memory, replayed as graphs.

A layer of a small network is computed sooner than a processor launches the next one. So what the device does for a
batch is recorded once, as a graph, and launched as a whole
([why](../docs/decisions/0042-graphs-of-one-shape-on-a-gpu.md)). Two batches are under way at a time, each on a stream
of its own: one is copied while the other is computed.
"""

import logging
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import torch
from torch import Tensor

NUM_AT_ONCE = 2
BATCH_SIZE = 16
"""Unless the settings say otherwise: of 8, 16, 32 and 64 the one with which an H100 detects most,
copies included; and most tiles are the detector's."""
PORTABLE = 1
"""cudaHostRegisterPortable: pinned for all devices."""
OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation: so says the driver when memory is short for anything but a tensor."""

Network = Callable[..., Tensor]

_CAPTURING = threading.Lock()
"""Of all generators: a process may record one graph at a time, and wait for the whole device at no such time."""

log = logging.getLogger(__name__)


class CudaBatches:
    """Computes batches of a generator's networks; any number of threads may ask.

    A batch always has `batch_size` tiles: a convolution may be computed by another algorithm at another size. Where
    fewer are asked for, the others stay what they were in the batch before, and nobody reads what becomes of them.

    Graphs hold on to their memory: call `clear` when batches become smaller. A copy of this records its own.
    """

    def __init__(self, device: torch.device, *, uses_graphs: bool = True) -> None:
        """uses_graphs: False launches one layer after the other."""
        self._device = device
        self._uses_graphs = uses_graphs
        self._idle: SimpleQueue[_Stream] = SimpleQueue()
        """First in, first out: each is used in its turn, and so warmed up."""
        for _ in range(NUM_AT_ONCE):
            self._idle.put(_Stream(device, uses_graphs))

    def __reduce__(self) -> tuple[object, ...]:
        return _copy_of, (self._device, self._uses_graphs)

    def compute(self, network: Network, batch_size: int, inputs: Sequence[Tensor]) -> Tensor:
        """inputs: (N, C, T, T) float32 on the CPU each, N at most `batch_size`; returns (N, C', T, T) float32 on the
        CPU, channels last.

        Raises torch.OutOfMemoryError, and torch.AcceleratorError once the device cannot be used any more.
        """
        stream = self._idle.get()
        try:
            return stream.compute(network, batch_size, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if getattr(error, "error_code", None) == OUT_OF_MEMORY:
                raise torch.OutOfMemoryError(str(error)) from error
            with _CAPTURING:  # cuDNN's own errors do not say whether the device is lost: then any call fails
                torch.cuda.synchronize(self._device)
            raise
        finally:
            self._idle.put(stream)

    def clear(self) -> None:
        """Give back what no thread is using; the others see by themselves that batches have another size."""
        idle: list[_Stream] = []
        with suppress(Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for stream in idle:
            stream.clear()
            self._idle.put(stream)


def _copy_of(device: torch.device, uses_graphs: bool) -> CudaBatches:
    return CudaBatches(device, uses_graphs=uses_graphs)


class _Stream:
    """A stream of the device, and the batches that were computed on it so far. One thread at a time."""

    def __init__(self, device: torch.device, uses_graphs: bool) -> None:
        self._device = device
        self._uses_graphs = uses_graphs
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned = _PinnedMemory()
        self._batch_size = 0
        self._batches: dict[tuple[Network, tuple[torch.Size, ...]], _Batch] = {}
        """By what computes them and by the shapes of a tile, of its mask, of its context."""

    def compute(self, network: Network, batch_size: int, inputs: Sequence[Tensor]) -> Tensor:
        if batch_size != self._batch_size:
            self.clear()
            self._batch_size = batch_size
        key = (network, tuple(tiles.shape[1:] for tiles in inputs))
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if key not in self._batches:
                self._batches[key] = self._prepare(network, key[1])
            return self._batches[key].compute(inputs)

    def clear(self) -> None:
        with suppress(RuntimeError):  # a copy may be under way to what is given back
            self._stream.synchronize()
        self._batches.clear()
        self._pinned = _PinnedMemory()

    def _prepare(self, network: Network, shapes: Sequence[torch.Size]) -> "_Batch":
        self._stream.wait_stream(torch.cuda.default_stream(self._device))  # on which weights were made ready
        batch = _Batch(network, [(self._batch_size, *shape) for shape in shapes], self._device, self._pinned)
        if self._uses_graphs:
            batch.record(self._stream, [other.graph for other in self._batches.values() if other.graph])
        return batch


class _Batch:
    """What one network makes of inputs of one shape."""

    def __init__(
        self, network: Network, shapes: Sequence[tuple[int, ...]], device: torch.device, pinned: "_PinnedMemory"
    ) -> None:
        """Computes once, so that kernels are loaded and their algorithms chosen. Raises torch.OutOfMemoryError."""
        self._network = network
        self._inputs = [torch.zeros(shape, device=device).to(memory_format=torch.channels_last) for shape in shapes]
        self._pinned = pinned
        # "blocking": the processor has photos to cut and to blend, and does not look all the time whether it is done
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._results: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        for use, shape in enumerate((self._run().shape, *shapes)):
            pinned.view(use, shape)  # so that it need not grow

    def record(self, stream: torch.cuda.Stream, others: Sequence[torch.cuda.CUDAGraph]) -> None:
        """others: of this stream. One is replayed at a time, so that each may overwrite what the last needs no more.
        Where it cannot be recorded, layers go on being launched one after the other."""
        graph = torch.cuda.CUDAGraph()
        pool = others[0].pool() if others else None
        try:
            # "thread_local": other threads go on computing and allocating meanwhile
            with _CAPTURING, torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                results = self._run()
        except RuntimeError as error:
            if torch.OutOfMemoryError in (type(error), type(error.__context__)):
                raise torch.OutOfMemoryError(str(error)) from error
            name = getattr(self._network, "__name__", "a network")
            log.warning("%s cannot be recorded as a graph; it is slower without", name, exc_info=True)
        else:
            self.graph, self._results = graph, results

    def compute(self, inputs: Sequence[Tensor]) -> Tensor:
        """On the stream that it was recorded on. Waits for the results, and lets other threads go on meanwhile.

        Both ways samples of a pixel are copied side by side: so tiles are cut, computed and blended.
        """
        num_tiles = len(inputs[0])
        for use, (tiles, on_device) in enumerate(zip(inputs, self._inputs, strict=True), 1):
            samples = tiles.permute(0, 2, 3, 1)
            staged = self._pinned.view(use, samples.shape).copy_(samples)
            on_device[:num_tiles].permute(0, 2, 3, 1).copy_(staged, non_blocking=True)
        results = self._results_of_inputs()[:num_tiles].permute(0, 2, 3, 1)
        taken = self._pinned.view(0, results.shape).copy_(results, non_blocking=True)
        self._done.record()
        self._done.synchronize()
        return taken.clone().permute(0, 3, 1, 2)

    def _results_of_inputs(self) -> Tensor:
        if self.graph is None or self._results is None:
            return self._run()
        self.graph.replay()
        return self._results

    def _run(self) -> Tensor:
        """(N, C, T, T) float32, channels last."""
        return self._network(*self._inputs).float().contiguous(memory_format=torch.channels_last)


class _PinnedMemory:
    """Host memory that the device copies from and to by itself, for what a stream's batches use one after the other.

    Not of torch's own pool, which calls the device whenever a tensor is freed, and ends the process if that fails: a
    service whose device is lost is to say so.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, _PinnedBuffer] = {}

    def view(self, use: int, shape: Sequence[int]) -> Tensor:
        """float32. use: 0 for results, 1 and on for inputs; what was there before is overwritten."""
        num_samples = math.prod(shape)
        if use not in self._buffers or len(self._buffers[use].samples) < num_samples:
            self._buffers[use] = _PinnedBuffer(num_samples)
        return self._buffers[use].samples[:num_samples].view(*shape)


class _PinnedBuffer:
    """samples: (num_samples,) float32."""

    def __init__(self, num_samples: int) -> None:
        num_bytes = 4 * num_samples
        memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # pages of its own
        self.samples = torch.frombuffer(memory, dtype=torch.float32)
        address = self.samples.data_ptr()
        driver = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        if error := int(driver.cudaHostRegister(address, num_bytes, PORTABLE)):
            log.warning("%d bytes cannot be pinned (CUDA error %d); copies wait for the device", num_bytes, error)
        else:
            weakref.finalize(self, driver.cudaHostUnregister, address)
