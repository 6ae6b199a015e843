"""Samples to network range and back: the only file in which ranges change."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_model_range(samples: np.ndarray) -> Tensor:
    """samples: (H, W, C) uint8 or uint16; returns (C, H, W) float32 in [0, 1]."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"samples are {samples.dtype}, expected uint8 or uint16")
    full_scale = float(np.iinfo(samples.dtype).max)
    channels_first = np.ascontiguousarray(samples.transpose(2, 0, 1)).astype(np.float32)
    return torch.from_numpy(channels_first).div_(full_scale)


def stack_tiles(tiles: Sequence[np.ndarray]) -> Tensor:
    """tiles: N arrays (T, T, C) uint8 or uint16; returns (N, C, T, T) float32 in [0, 1]."""
    return torch.stack([to_model_range(tile) for tile in tiles])


def to_samples(picture: Tensor, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> np.ndarray:
    """picture: (C, H, W) float in [0, 1], clipped where it is not; returns (H, W, C) of `dtype`, rounded to nearest."""
    levels = picture.detach().float().clamp(0.0, 1.0).mul(float(np.iinfo(dtype).max)).round()
    levels = levels.to(torch.uint8 if dtype is np.uint8 else torch.int32)
    return levels.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)


def to_signed_range(tiles: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], the range that the `pix2pix` generator was defined in."""
    return tiles * 2.0 - 1.0


def from_signed_range(tiles: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (tiles + 1.0) / 2.0
