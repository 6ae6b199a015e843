"""A U-Net's convolutions on a CPU, by OpenVINO.

Of what torch takes for one layer after the other half is spent on memory: biases, activations and sums pass through it
one by one. Compiled as a whole they are computed with the convolution before them
([why](../docs/decisions/0049-openvino-convolves-on-a-cpu.md)).
"""

import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.generator import LEAK, ResidualConv, UNet

# As if it were not installed, which OpenVINO provides for: imported, it calls a server of its makers' by name
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

PRECISION_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}


class CompiledConvolutions:
    """`UNet.convolve`, compiled for each size of a tile when the first such tile comes; any number of threads may ask.

    Each tile is computed by one core and by itself, so its bits depend on nothing else. Tiles of one call, and of calls
    from several threads, are computed by as many cores as there are threads.
    """

    def __init__(self, network: UNet, dtype: torch.dtype, num_threads: int | None = None) -> None:
        """network: in float32, its weights are read when the first tile comes. dtype: bfloat16 or float32. num_threads:
        None for as many as torch has by then."""
        self._network = network
        self._dtype = dtype
        self._num_threads = num_threads
        self._forget()

    def _forget(self) -> None:
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[torch.Size, ...], openvino.CompiledModel] = {}
        self._of_thread = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """A copy compiles its own."""
        return {"_network": self._network, "_dtype": self._dtype, "_num_threads": self._num_threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __call__(self, x: Tensor, further: Tensor | None = None) -> Tensor:
        """See `UNet.convolve`; float32 on the CPU, without gradients. Returns float32."""
        num_tiles, _, height, width = x.shape
        inputs = [x.contiguous()]
        if (stem := self._network.further_stem) is not None:
            if further is None:  # the stem has no bias: of nothing it makes nothing
                further = x.new_zeros(num_tiles, stem.in_channels, height // 2, width // 2)
            inputs.append(further.contiguous())
        requests = self._requests_of_thread(tuple(tiles.shape[1:] for tiles in inputs))
        num_answers = sum(head.out_channels for head in self._network.heads) // 4
        answers = x.new_empty(num_tiles, num_answers, height, width)
        for index in range(num_tiles):
            request = requests[index % len(requests)]
            request.wait()
            for place, tiles in enumerate(inputs):
                request.set_input_tensor(place, _shared(tiles[index : index + 1]))
            request.set_output_tensor(_shared(answers[index : index + 1]))
            request.start_async()
        for request in requests:
            request.wait()
        return answers

    def _requests_of_thread(self, shapes: tuple[torch.Size, ...]) -> list[openvino.InferRequest]:
        """One for each tile that may be computed at once. A request serves one thread at a time."""
        requests: dict[tuple[torch.Size, ...], list[openvino.InferRequest]]
        requests = self._of_thread.__dict__.setdefault("requests", {})
        if shapes not in requests:
            compiled, num_threads = self._compile(shapes)
            requests[shapes] = [compiled.create_infer_request() for _ in range(num_threads)]
        return requests[shapes]

    def _compile(self, shapes: tuple[torch.Size, ...]) -> tuple[openvino.CompiledModel, int]:
        with self._compiling:
            if self._num_threads is None:
                self._num_threads = torch.get_num_threads()
            if shapes not in self._compiled:
                self._compiled[shapes] = openvino.Core().compile_model(
                    _translate(self._network, shapes),
                    "CPU",
                    {
                        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[self._dtype],
                        "NUM_STREAMS": self._num_threads,
                        "INFERENCE_NUM_THREADS": self._num_threads,
                        "ENABLE_CPU_PINNING": False,  # others may have the same cores
                    },
                )
            return self._compiled[shapes], self._num_threads


def _shared(tile: Tensor) -> openvino.Tensor:
    """The same memory."""
    return openvino.Tensor(tile.numpy(), shared_memory=True)


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
    together.bias.data = torch.cat([conv.bias for conv in convs])
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
