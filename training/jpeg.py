"""JPEG's loss without its entropy coding, in batched tensor operations."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restoration.unets import TO_LUMA_CHROMA

BLOCK_PX = 8
MCU_PX = 2 * BLOCK_PX
"""Side of what is coded together where chroma is halved."""

# ITU-T T.81, tables K.1 and K.2
_LUMA_STEPS = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA_STEPS = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""


def compress_jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Neither chroma subsampling nor a table for chroma: as the best scanners write it.

    pictures: (N, 3, H, W) in [0, 1]; quality: (N, 1, 1, 1) in (0, 100], as libjpeg scales its tables.
    """
    ycc = _to_ycc(_padded(pictures, BLOCK_PX))
    return _from_ycc(_quantise(ycc, _steps(_LUMA_STEPS, quality)), pictures.shape)


def compress_jpeg_subsampled(pictures: Tensor, quality: Tensor) -> Tensor:
    """With chroma of half the side and its own table, as cameras, web sites and libjpeg by default write it.

    pictures, quality: see `compress_jpeg`.
    """
    ycc = _to_ycc(_padded(pictures, MCU_PX))
    luma = _quantise(ycc[:, :1], _steps(_LUMA_STEPS, quality))
    chroma = _quantise(F.avg_pool2d(ycc[:, 1:], 2), _steps(_CHROMA_STEPS, quality))
    # libjpeg's "fancy upsampling" is the same triangle filter
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    return _from_ycc(torch.cat([luma, chroma], dim=1), pictures.shape)


def _padded(pictures: Tensor, multiple_px: int) -> Tensor:
    return F.pad(pictures, (0, -pictures.shape[3] % multiple_px, 0, -pictures.shape[2] % multiple_px), mode="replicate")


def _to_ycc(pictures: Tensor) -> Tensor:
    return torch.einsum("yc,nchw->nyhw", torch.tensor(TO_LUMA_CHROMA, device=pictures.device), pictures * 255.0)


def _from_ycc(ycc: Tensor, shape: torch.Size) -> Tensor:
    to_rgb = torch.linalg.inv(torch.tensor(TO_LUMA_CHROMA, device=ycc.device))
    rgb = torch.einsum("cy,nyhw->nchw", to_rgb, ycc) / 255.0
    return rgb[:, :, : shape[2], : shape[3]].clamp(0, 1)


def _steps(table: str, quality: Tensor) -> Tensor:
    """(N, 1, 1, 1, 8, 8): how coarsely each coefficient is rounded."""
    steps = torch.tensor([float(step) for step in table.split()], device=quality.device).view(BLOCK_PX, BLOCK_PX)
    scale = torch.where(quality < 50, 50.0 / quality, 2.0 - quality / 50.0)
    return (steps * scale.view(-1, 1, 1, 1, 1, 1)).round().clamp(min=1.0)


def _quantise(planes: Tensor, steps: Tensor) -> Tensor:
    """planes: (N, C, H, W), H and W multiples of 8; returns them with their coefficients rounded to the steps."""
    n, c, height, width = planes.shape
    blocks = planes.reshape(n, c, height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX).transpose(3, 4)
    index = torch.arange(BLOCK_PX, device=planes.device, dtype=torch.float32)
    dct = torch.cos((2 * index + 1) * index[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    coefficients = (dct @ blocks @ dct.T / steps).round() * steps  # (N, C, H/8, W/8, 8, 8)
    return (dct.T @ coefficients @ dct).transpose(3, 4).flatten(4, 5).flatten(2, 3)
