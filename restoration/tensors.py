"""Samples to the networks' range and back. What a denoiser adds is scaled to a photo's depth in `photo_colours`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STRIP_PX = 16
"""Rows of a band that are converted at a time."""


def to_model_range(samples: np.ndarray) -> Tensor:
    """samples: (H, W, C) uint8 or uint16; returns (C, H, W) float32 in [0, 1]."""
    _expect_levels(samples)
    full_scale = float(np.iinfo(samples.dtype).max)
    channels_first = np.ascontiguousarray(samples.transpose(2, 0, 1)).astype(np.float32)
    return torch.from_numpy(channels_first).div_(full_scale)


def stack_tiles(tiles: Sequence[np.ndarray]) -> Tensor:
    """tiles: N arrays (T, T, C) uint8 or uint16; returns (N, C, T, T) float32 in [0, 1], channels last in memory."""
    _expect_levels(tiles[0])
    full_scale = np.float32(np.iinfo(tiles[0].dtype).max)
    stacked = np.empty((len(tiles), *tiles[0].shape), np.float32)
    for tile, samples in zip(tiles, stacked, strict=True):
        np.divide(tile, full_scale, out=samples, dtype=np.float32)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def to_samples(picture: Tensor) -> np.ndarray:
    """picture: (C, H, W) float in [0, 1], clipped where it is not; returns (H, W, C) uint8, rounded to nearest."""
    return band_to_samples(picture.detach().float().permute(1, 2, 0).cpu().numpy())


def band_to_samples(band: np.ndarray, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> np.ndarray:
    """band: (H, W) or (H, W, C) float32 in [0, 1], clipped where not; returns the same as `dtype`, rounded to nearest.

    A few rows at a time: what comes in between takes several times as much as the samples.
    """
    full_scale = np.float32(np.iinfo(dtype).max)
    samples = np.empty(band.shape, dtype)
    levels = np.empty((STRIP_PX, *band.shape[1:]), np.float32)
    for top in range(0, len(band), STRIP_PX):
        strip = band[top : top + STRIP_PX]
        of_strip = levels[: len(strip)]
        np.clip(strip, np.float32(0.0), np.float32(1.0), out=of_strip)
        of_strip *= full_scale
        np.rint(of_strip, out=of_strip)
        samples[top : top + STRIP_PX] = of_strip
    return samples


def to_signed_range(tiles: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], the range that the `pix2pix` generator was defined in."""
    return tiles * 2.0 - 1.0


def from_signed_range(tiles: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (tiles + 1.0) / 2.0


def _expect_levels(samples: np.ndarray) -> None:
    if samples.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"samples are {samples.dtype}, expected uint8 or uint16")
