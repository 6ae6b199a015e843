"""PatchGAN: says of each patch of a candidate, given what it was made from, whether it is real (arXiv 1611.07004)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


@dataclass(frozen=True)
class PatchGANConfig:
    """The original's figures; strides are 2, 2, 2, 1, then one channel of logits."""

    channels: tuple[int, ...] = (64, 128, 256, 512)
    norm: Literal["batch", "spectral"] = "batch"


class PatchGAN(nn.Module):
    """(N, C, H, W) condition and (N, 3, H, W) candidate to (N, 1, h, w) logits, h about H / 8."""

    def __init__(self, condition_channels: int, config: PatchGANConfig | None = None) -> None:
        super().__init__()
        config = config or PatchGANConfig()
        layers: list[nn.Module] = []
        in_channels = condition_channels + 3
        for index, channels in enumerate(config.channels):
            stride = 1 if index == len(config.channels) - 1 else 2
            layers.append(_layer(in_channels, channels, stride, config.norm if index > 0 else None))
            in_channels = channels
        self.layers = nn.ModuleList(layers)
        self.head = nn.Conv2d(in_channels, 1, 4, 1, 1, padding_mode="reflect")

    def forward(self, condition: Tensor, candidate: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the logits, and each layer's features for feature matching."""
        x = torch.cat([condition, candidate], dim=1)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.head(x), features


def _layer(in_channels: int, out_channels: int, stride: int, norm: Literal["batch", "spectral"] | None) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, 4, stride, 1, bias=norm != "batch", padding_mode="reflect")
    if norm == "batch":
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2))
    return nn.Sequential(spectral_norm(conv) if norm == "spectral" else conv, nn.LeakyReLU(0.2))
