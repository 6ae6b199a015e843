"""A U-Net's convolutions translated into OpenVINO's operations, by hand, from the modules that torch runs.

Where a processor multiplies integers of 8 bits much faster than floats, a network's way up can be quantised: what it
computes from its coarsest level on. Its way down stays in float32: what is rounded there is seen by all that follows
([why](../docs/decisions/0050-int8-on-the-way-up.md)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from restoration.quiet_openvino import openvino, ops
from restoration.unets import LEAK, ResidualConv, UNet

NUM_LEVELS = 256
"""Of what is quantised."""
EVENNESS = 0.5
"""How much of the differences between a convolution's input channels is taken over by its weights, whose own range each
output channel has, where all inputs share one (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438)."""
LEAST_AMPLITUDE = 1e-3
"""Of an input channel, or of its weights, over the largest."""
TINY = 1e-12
"""Of a range, so that one of nothing is no division by 0."""

Convolving = Callable[[nn.Module, openvino.Node], openvino.Node]
"""`convolved`, or what takes its place: of an `nn.Conv2d` and its input."""


@dataclass(frozen=True, eq=False)
class Extent:
    """From where to where the samples of each channel reach, (C,) float32 each."""

    low: np.ndarray
    high: np.ndarray


def mean_extent(extents: Sequence[Extent]) -> Extent:
    """The same to the bit in whichever order the tiles came: threads may have computed them.

    A tile's extremes are few samples, which may be clipped; those of all tiles would take most levels from the others.
    """
    lows, highs = zip(*((each.low, each.high) for each in extents), strict=True)
    return Extent(*(np.sort(ends, axis=0).mean(axis=0) for ends in (lows, highs)))


class Watching:
    """`convolved`, and what must be computed besides to know the extents of its inputs."""

    def __init__(self) -> None:
        self.extents: list[openvino.Node] = []
        """Lows and highs, (C,) each, in turns."""

    def __call__(self, conv: nn.Module, x: openvino.Node) -> openvino.Node:
        over_places = ops.constant([0, 2, 3], openvino.Type.i32)
        self.extents += [ops.reduce_min(x, over_places), ops.reduce_max(x, over_places)]
        return convolved(conv, x)


class Quantising:
    """`convolved` with integers. extents: of its inputs, in the order in which it is called."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._extents = iter(extents)

    def __call__(self, conv: nn.Module, x: openvino.Node) -> openvino.Node:
        assert isinstance(conv, nn.Conv2d)
        extent, weight = next(self._extents), conv.weight.detach().numpy()
        scale = _even_out(extent, weight)
        low, high = min(0.0, float((extent.low / scale).min())), max(TINY, float((extent.high / scale).max()))
        step = (high - low) / (NUM_LEVELS - 1)
        low = round(low / step) * step  # 0 is a level: what is padded stays 0
        high = low + (NUM_LEVELS - 1) * step
        seen = [_per_channel(end * scale) for end in (low, high)]
        x = ops.fake_quantize(x, *seen, _per_channel([low]), _per_channel([high]), NUM_LEVELS)
        return _biased(conv, _convolution(conv, x, _quantised(weight * scale[:, None, None])))


def _even_out(extent: Extent, weight: np.ndarray) -> np.ndarray:
    """By what to divide each input channel, and to multiply its weights: (C,) float32. weight: (O, C, h, w)."""
    amplitude, share = np.maximum(-extent.low, extent.high), np.abs(weight).max(axis=(0, 2, 3))
    amplitude, share = (np.maximum(each, LEAST_AMPLITUDE * each.max() + TINY) for each in (amplitude, share))
    scale: np.ndarray = (amplitude**EVENNESS / share ** (1.0 - EVENNESS)).astype(np.float32)
    return scale


def _quantised(weight: np.ndarray) -> openvino.Node:
    """(O, C, h, w) in integers of 8 bits, those of each output channel as far as they reach."""
    step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / (NUM_LEVELS // 2 - 1) + TINY
    integers = ops.constant(np.rint(weight / step).astype(np.int8))
    return ops.multiply(ops.convert(integers, openvino.Type.f32), ops.constant(step.astype(np.float32)))


def _per_channel(values: np.ndarray | Sequence[float]) -> openvino.Node:
    return ops.constant(np.asarray(values, np.float32).reshape(1, -1, 1, 1))


def translate(network: UNet, shapes: Sequence[torch.Size], convolved_up: Convolving) -> openvino.Model:
    """`network.convolve` of one tile. shapes: (C, H, W) of each input. convolved_up: `convolved`, or what takes its
    place on the way up; what a `Watching` sees follows the answer."""
    inputs = [ops.parameter([1, *shape], openvino.Type.f32) for shape in shapes]
    x = convolved(network.stem, ops.space_to_depth(inputs[0], "depth_first", 2))
    if network.further_stem is not None:
        x = ops.add(x, convolved(network.further_stem, inputs[1]))
    x = _activated(x)
    skips = []
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        x = _residual(encoder, x, convolved)
        skips.append(x)
        x = _activated(convolved(down, x))
    for block in network.context:
        x = _residual(block, x, convolved_up)
    for up, decoder in zip(reversed(network.ups), reversed(network.decoders), strict=True):
        x = _residual(decoder, ops.add(_enlarged(convolved_up(up, x)), skips.pop()), convolved_up)
    answers = convolved_up(_as_one(network.heads), x)
    seen = convolved_up.extents if isinstance(convolved_up, Watching) else []
    results = [ops.depth_to_space(answers, "depth_first", 2), *seen]
    return openvino.Model(results, inputs, "convolutions")


def _as_one(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """That answers what they do, one after the other; of 3 x 3 or 1 x 1 each, with a bias."""
    together = nn.Conv2d(convs[0].in_channels, sum(conv.out_channels for conv in convs), 3, padding=1)
    around = [(3 - conv.kernel_size[0]) // 2 for conv in convs]
    together.weight.data = torch.cat([F.pad(conv.weight, [px] * 4) for conv, px in zip(convs, around, strict=True)])
    together.bias = nn.Parameter(torch.cat([conv.bias for conv in convs if conv.bias is not None]))
    return together


def convolved(conv: nn.Module, x: openvino.Node) -> openvino.Node:
    assert isinstance(conv, nn.Conv2d)
    return _biased(conv, _convolution(conv, x, ops.constant(conv.weight.detach().numpy())))


def _convolution(conv: nn.Conv2d, x: openvino.Node, weight: openvino.Node) -> openvino.Node:
    padding = [int(amount) for amount in conv.padding]
    return ops.convolution(x, weight, conv.stride, padding, padding, conv.dilation)


def _biased(conv: nn.Conv2d, x: openvino.Node) -> openvino.Node:
    return x if conv.bias is None else ops.add(x, _per_channel(conv.bias.detach().numpy()))


def _residual(block: nn.Module, x: openvino.Node, convolving: Convolving) -> openvino.Node:
    assert isinstance(block, ResidualConv)
    return ops.add(x, _activated(convolving(block.conv, x)))


def _activated(x: openvino.Node) -> openvino.Node:
    return ops.prelu(x, ops.constant([LEAK], openvino.Type.f32))


def _enlarged(x: openvino.Node) -> openvino.Node:
    """Each sample becomes two by two."""
    factors, axes = ops.constant([2.0, 2.0], openvino.Type.f32), ops.constant([2, 3], openvino.Type.i32)
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return ops.interpolate(x, factors, "nearest", "scales", axes=axes, **nearest)
