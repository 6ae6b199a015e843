"""A U-Net's convolutions on a CPU, by OpenVINO.

Of what torch takes for one layer after the other half is spent on memory: biases, activations and sums pass through it
one by one. Compiled as a whole they are computed with the convolution before them
([why](../docs/decisions/0049-openvino-convolves-on-a-cpu.md)).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restoration.openvino_models import Extent, Quantising, Watching, convolved, mean_extent, translate
from restoration.quiet_openvino import openvino
from restoration.under_way import UNDER_WAY
from restoration.unets import UNet

CORE = openvino.Core()
"""The only one, and for as long as the process lives: it gives the thread that first compiles a stack for signals (AMX
needs a larger one), and when it goes, in whichever thread, that stack goes with it and is written to by the next."""
PRECISION_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}
MOST_CORES = 4
"""On one tile: the more there are, the longer each waits for the others."""


class CompiledConvolutions:
    """`UNet.convolve`, compiled for each size of a tile when the first such tile comes; any number of threads may ask.

    Each tile is computed by itself, so its bits depend on nothing else. Tiles of one call, and of calls from several
    threads, are computed by as many cores as there are threads, each by one; one that comes alone, for the only photo
    under way, by several, if that gives the same bits
    ([why](../docs/decisions/0052-several-cores-for-a-tile-that-is-alone.md)).
    """

    def __init__(self, dtype: torch.dtype, num_threads: int = 0) -> None:
        """dtype: bfloat16 or float32. num_threads: 0 for as many as torch has when the first tile comes."""
        self._dtype = dtype
        self._num_threads = num_threads
        self._watched: list[list[Extent]] | None = None
        """Of each tile, while it is noted."""
        self.extents: list[Extent] = []
        """Of what is convolved on the way up, in order, if that is quantised."""
        self._forget()

    def _forget(self) -> None:
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[torch.Size, ...], _Ways] = {}

    def watch(self) -> None:
        """Note of each tile that comes how far reaches what is convolved on the way up, for `quantise`.

        Neither is to be called while any tile is computed.
        """
        self._watched = []
        self._forget()

    def quantise(self) -> None:
        """From now on the way up is computed with integers of 8 bits that reach as far as what was seen since `watch`,
        the mean over its tiles. If there were none nothing changes."""
        tiles = self._watched or []
        self.extents = [mean_extent(extents) for extents in zip(*tiles, strict=True)]
        self._watched = None
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """A copy compiles its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_compiling", "_compiled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __call__(self, network: UNet, x: Tensor, further: Tensor | None = None) -> Tensor:
        """See `UNet.convolve`; float32 on the CPU, without gradients. Returns float32. network: always the same."""
        num_tiles, _, height, width = x.shape
        inputs = [x.contiguous()]
        if (stem := network.further_stem) is not None:
            if further is None:  # the stem has no bias: of nothing it makes nothing
                further = x.new_zeros(num_tiles, stem.in_channels, height // 2, width // 2)
            inputs.append(further.contiguous())
        ways = self._compile(network, tuple(tiles.shape[1:] for tiles in inputs))
        answers = x.new_empty(num_tiles, sum(head.out_channels for head in network.heads) // 4, height, width)
        with UNDER_WAY.more_tiles(num_tiles) as is_alone, ways.choose(is_alone).requests(num_tiles) as requests:
            for index in range(num_tiles + len(requests)):
                request = requests[index % len(requests)]
                if index >= len(requests):
                    request.wait()
                    if self._watched is not None:
                        self._watched.append(request.extents())
                if index < num_tiles:
                    request.start(*(tiles[index : index + 1].numpy() for tiles in (*inputs, answers)))
        return answers

    def give_back(self) -> None:
        """Memory that is had again for the next tile. Not to be called while any is computed."""
        for ways in self._compiled.values():
            ways.give_back()

    def _compile(self, network: UNet, shapes: tuple[torch.Size, ...]) -> "_Ways":
        with self._compiling:
            if shapes not in self._compiled:
                num_threads = self._num_threads or torch.get_num_threads()
                self._compiled[shapes] = _Ways(
                    self._translate(network, shapes), self._dtype, num_threads, has_several=self._watched is None
                )
            return self._compiled[shapes]

    def _translate(self, network: UNet, shapes: Sequence[torch.Size]) -> openvino.Model:
        if self._watched is not None:
            return translate(network, shapes, Watching())
        return translate(network, shapes, Quantising(self.extents) if self.extents else convolved)


class _Ways:
    """A network for one size of tiles: several tiles at once with a core each, and one with several cores."""

    def __init__(self, model: openvino.Model, dtype: torch.dtype, num_threads: int, *, has_several: bool) -> None:
        """has_several: False for what is soon compiled anew."""
        self._with_one_core = _Compiled(model, dtype, num_at_once=num_threads, num_threads=num_threads)
        self._with_several = self._with_one_core
        if has_several and num_threads > 1:
            several = _Compiled(model, dtype, num_at_once=1, num_threads=min(num_threads, MOST_CORES))
            if _answers_to_noise(several, model) == _answers_to_noise(self._with_one_core, model):
                self._with_several = several

    def choose(self, is_alone: bool) -> "_Compiled":
        """is_alone: see `UnderWay.more_tiles`."""
        return self._with_several if is_alone else self._with_one_core

    def give_back(self) -> None:
        """See `CompiledConvolutions.give_back`."""
        for compiled in (self._with_one_core, self._with_several):
            compiled.give_back()


def _answers_to_noise(compiled: "_Compiled", model: openvino.Model) -> bytes:
    """Of one tile. In which order a convolution adds up may depend on how it is cut up for the cores."""
    rng = np.random.default_rng(0)
    inputs = [rng.random(tuple(node.shape), np.float32) for node in model.inputs]
    answers = np.empty(tuple(model.outputs[0].shape), np.float32)
    with compiled.requests(1) as (request,):
        request.start(*inputs, answers)
        request.wait()
    return answers.tobytes()


class _Compiled:
    """A network for one size of tiles, and how many cores compute how many of them."""

    def __init__(self, model: openvino.Model, dtype: torch.dtype, *, num_at_once: int, num_threads: int) -> None:
        """num_threads: of all that are computed at once."""
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[dtype],
            "NUM_STREAMS": num_at_once,
            "INFERENCE_NUM_THREADS": num_threads,
            "ENABLE_CPU_PINNING": False,  # others may have the same cores
        }
        self._model = CORE.compile_model(model, "CPU", settings)
        self._num_at_once = num_at_once
        self._idle: list[_Request] = []

    @contextmanager
    def requests(self, num_tiles: int) -> Iterator["list[_Request]"]:
        """As many as may be computed at once of so many tiles, for nobody else until then, and then under way no more.
        Where it fails they are not used again."""
        requests = [self._take() for _ in range(min(num_tiles, self._num_at_once))]
        with ExitStack() as under_way:
            for request in requests:
                under_way.callback(request.wait)
            yield requests
        self._idle += requests

    def give_back(self) -> None:
        """See `CompiledConvolutions.give_back`."""
        self._idle.clear()
        self._model.release_memory()

    def _take(self) -> "_Request":
        try:
            return self._idle.pop()
        except IndexError:  # more are asked for at once than ever before
            return _Request(self._model)


class _Request:
    """Computes one tile at a time, from the caller's memory into the caller's, and then holds on to none of it."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._request = model.create_infer_request()
        self._own = [*self._request.input_tensors, self._request.output_tensors[0]]
        self._lent: list[np.ndarray] = []

    def start(self, *arrays: np.ndarray) -> None:
        """arrays: the inputs, and where the answer goes, (1, C, H, W) float32 each, contiguous. What was started before
        must have been waited for."""
        self._lent = list(arrays)
        self._use([openvino.Tensor(array, shared_memory=True) for array in arrays])
        self._request.start_async()

    def wait(self) -> None:
        """Until the answer is where it goes, if anything was started."""
        if self._lent:
            try:
                self._request.wait()
            finally:
                self._use(self._own)
                self._lent = []

    def _use(self, tensors: Sequence[openvino.Tensor]) -> None:
        *inputs, answer = tensors
        for index, tensor in enumerate(inputs):
            self._request.set_input_tensor(index, tensor)
        self._request.set_output_tensor(0, answer)

    def extents(self) -> list[Extent]:
        """Of what was watched, in the order in which it was translated; once it was waited for."""
        seen = [tensor.data.copy() for tensor in self._request.output_tensors[1:]]
        return [Extent(low, high) for low, high in zip(seen[::2], seen[1::2], strict=True)]
