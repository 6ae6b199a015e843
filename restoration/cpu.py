"""A U-Net's convolutions on a CPU, by OpenVINO.

Of what torch takes for one layer after the other half is spent on memory: biases, activations and sums pass through it
one by one. Compiled as a whole they are computed with the convolution before them
([why](../docs/decisions/0049-openvino-convolves-on-a-cpu.md)).
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.generator import LEAK, ResidualConv, UNet

# As if it were not installed, which OpenVINO provides for: imported, it calls a server of its makers' by name
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

CORE = openvino.Core()
"""The only one, and for as long as the process lives: it gives the thread that first compiles a stack for signals (AMX
needs a larger one), and when it goes, in whichever thread, that stack goes with it and is written to by the next."""
PRECISION_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}


class CompiledConvolutions:
    """`UNet.convolve`, compiled for each size of a tile when the first such tile comes; any number of threads may ask.

    Each tile is computed by one core and by itself, so its bits depend on nothing else. Tiles of one call, and of calls
    from several threads, are computed by as many cores as there are threads.
    """

    def __init__(self, dtype: torch.dtype, num_threads: int = 0) -> None:
        """dtype: bfloat16 or float32. num_threads: 0 for as many as torch has when the first tile comes."""
        self._dtype = dtype
        self._num_threads = num_threads
        self._forget()

    def _forget(self) -> None:
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[torch.Size, ...], _Compiled] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy compiles its own."""
        return {"_dtype": self._dtype, "_num_threads": self._num_threads}

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
        compiled = self._compile(network, tuple(tiles.shape[1:] for tiles in inputs))
        answers = x.new_empty(num_tiles, sum(head.out_channels for head in network.heads) // 4, height, width)
        with compiled.requests(num_tiles) as requests:
            for index in range(num_tiles + len(requests)):
                request = requests[index % len(requests)]
                if index >= len(requests):
                    answers[index - len(requests)] = request.answer()
                if index < num_tiles:
                    request.start([tiles[index] for tiles in inputs])
        return answers

    def give_back(self) -> None:
        """Memory that is had again for the next tile. Not to be called while any is computed."""
        for compiled in self._compiled.values():
            compiled.give_back()

    def _compile(self, network: UNet, shapes: tuple[torch.Size, ...]) -> "_Compiled":
        with self._compiling:
            if shapes not in self._compiled:
                num_threads = self._num_threads or torch.get_num_threads()
                self._compiled[shapes] = _Compiled(_translate(network, shapes), self._dtype, num_threads)
            return self._compiled[shapes]


class _Compiled:
    """A network for one size of tiles."""

    def __init__(self, model: openvino.Model, dtype: torch.dtype, num_threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[dtype],
            "NUM_STREAMS": num_threads,
            "INFERENCE_NUM_THREADS": num_threads,
            "ENABLE_CPU_PINNING": False,  # others may have the same cores
        }
        self._model = CORE.compile_model(model, "CPU", settings)
        self._num_at_once = num_threads
        self._idle: list[_Request] = []

    @contextmanager
    def requests(self, num_tiles: int) -> Iterator["list[_Request]"]:
        """As many as may be computed at once of so many tiles, for nobody else until then. Where it fails they are not
        used again: they may still be under way."""
        requests = [self._take() for _ in range(min(num_tiles, self._num_at_once))]
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
    """Computes one tile at a time, in memory of its own: so it holds on to nobody's."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._request = model.create_infer_request()

    def start(self, inputs: Sequence[Tensor]) -> None:
        """inputs: (C, H, W) each. Whatever was started before must have been answered."""
        for own, tile in zip(self._request.input_tensors, inputs, strict=True):
            torch.from_numpy(own.data)[0] = tile
        self._request.start_async()

    def answer(self) -> Tensor:
        """(C, H, W), once it is computed; until the next start."""
        self._request.wait()
        return torch.from_numpy(self._request.output_tensors[0].data)[0]


def _translate(network: UNet, shapes: Sequence[torch.Size]) -> openvino.Model:
    """`network.convolve` of one tile. shapes: (C, H, W) of each input."""
    inputs = [ops.parameter([1, *shape], openvino.Type.f32) for shape in shapes]
    x = _convolved(network.stem, ops.space_to_depth(inputs[0], "depth_first", 2))
    if network.further_stem is not None:
        x = ops.add(x, _convolved(network.further_stem, inputs[1]))
    x = _activated(x)
    skips = []
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        x = _residual(encoder, x)
        skips.append(x)
        x = _activated(_convolved(down, x))
    for block in network.context:
        x = _residual(block, x)
    for up, decoder in zip(reversed(network.ups), reversed(network.decoders), strict=True):
        x = _residual(decoder, ops.add(_enlarged(_convolved(up, x)), skips.pop()))
    answers = _convolved(_as_one(network.heads), x)
    return openvino.Model([ops.depth_to_space(answers, "depth_first", 2)], inputs, "convolutions")


def _as_one(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """That answers what they do, one after the other; of 3 x 3 or 1 x 1 each, with a bias."""
    together = nn.Conv2d(convs[0].in_channels, sum(conv.out_channels for conv in convs), 3, padding=1)
    around = [(3 - conv.kernel_size[0]) // 2 for conv in convs]
    together.weight.data = torch.cat([F.pad(conv.weight, [px] * 4) for conv, px in zip(convs, around, strict=True)])
    together.bias = nn.Parameter(torch.cat([conv.bias for conv in convs if conv.bias is not None]))
    return together


def _convolved(conv: nn.Module, x: openvino.Node) -> openvino.Node:
    assert isinstance(conv, nn.Conv2d)
    padding = [int(amount) for amount in conv.padding]
    weight = ops.constant(conv.weight.detach().numpy())
    convolved = ops.convolution(x, weight, conv.stride, padding, padding, conv.dilation)
    if conv.bias is None:
        return convolved
    return ops.add(convolved, ops.constant(conv.bias.detach().view(1, -1, 1, 1).numpy()))


def _residual(block: nn.Module, x: openvino.Node) -> openvino.Node:
    assert isinstance(block, ResidualConv)
    return ops.add(x, _activated(_convolved(block.conv, x)))


def _activated(x: openvino.Node) -> openvino.Node:
    return ops.prelu(x, ops.constant([LEAK], openvino.Type.f32))


def _enlarged(x: openvino.Node) -> openvino.Node:
    """Each sample becomes two by two."""
    factors, axes = ops.constant([2.0, 2.0], openvino.Type.f32), ops.constant([2, 3], openvino.Type.i32)
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return ops.interpolate(x, factors, "nearest", "scales", axes=axes, **nearest)
