"""The original's U-Net (Isola et al. 2017, arXiv 1611.07004), kept as the baseline."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restoration.generator import Generator
from restoration.tensors import from_signed_range, to_signed_range


@dataclass(frozen=True)
class Pix2PixConfig:
    """The original notebook's figures."""

    channels: int = 64
    dropout: float = 0.5


def _down(in_channels: int, out_channels: int, *, norm: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=not norm, padding_mode="reflect")
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_channels)] if norm else [conv]
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


def _up(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


class Pix2Pix(Generator):
    """The original's U-Net: 8 downs, 8 ups, skips concatenated, 54.4 M parameters. It repaints everything."""

    architecture = "pix2pix"
    tile_multiple_px = 256

    def __init__(self, config: Pix2PixConfig | None = None) -> None:
        super().__init__()
        self.config = config or Pix2PixConfig()
        c = self.config.channels
        downs = [c, c * 2, c * 4, *[c * 8] * 4]
        self.downs = nn.ModuleList(
            _down(fine, coarse, norm=index > 0)
            for index, (fine, coarse) in enumerate(zip([3, *downs[:-1]], downs, strict=True))
        )
        self.bottleneck = nn.Sequential(nn.Conv2d(c * 8, c * 8, 4, 2, 1), nn.ReLU())  # 2x2 to 1x1
        ups = [c * 8] * 4 + [c * 4, c * 2, c]
        inputs = [c * 8, *(skip + up for skip, up in zip(reversed(downs[1:]), ups[:-1], strict=True))]
        self.ups = nn.ModuleList(
            _up(in_channels, out_channels, self.config.dropout if index < 3 else 0.0)
            for index, (in_channels, out_channels) in enumerate(zip(inputs, ups, strict=True))
        )
        self.head = nn.Sequential(nn.ConvTranspose2d(c * 2, 3, 4, 2, 1), nn.Tanh())

    def forward(self, damaged: Tensor) -> Tensor:
        """damaged: (N, 3, 256, 256) float in [-1, 1]; returns the same."""
        x, skips = damaged, []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        x = self.bottleneck(x)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = torch.cat([up(x), skip], dim=1)
        restored: Tensor = self.head(x)
        return restored

    @property
    def detector_radius_px(self) -> int:
        return 0

    @property
    def required_evidence(self) -> float:
        return 0.0

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.ones_like(tiles[:, :1], dtype=torch.float32)

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        return from_signed_range(self(to_signed_range(tiles)).float()).clamp(0.0, 1.0)
