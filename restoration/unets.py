"""The U-Nets that our generators are made of, and the filters beside them."""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_DENOISER_RADIUS_PX = 64
"""How far a denoiser may look, so that tiles that overlap by twice as much leave no trace."""
BAND_GAIN = 4.0
"""By how much a denoiser is shown bands of detail enlarged."""
LITTLE_NOISE = -2.0
"""The logit of the share of each band that an untrained denoiser takes for noise."""
TO_LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""From red, green and blue (ITU-R BT.601, full range, as in JFIF)."""
LITTLE_KEPT = -2.0
"""The logit of the share that an untrained filler keeps of what it sees."""
LITTLE_TAKEN = -3.0
"""The logit of the share that an untrained filler takes of the smooth fill."""
LEAK = 0.2
"""The slope of the U-Nets' activations below 0."""
COARSEST_FILL_PX = 4
"""Side of the smallest copy of a tile from which the smooth fill is made."""


class ResidualConv(nn.Module):
    """x + act(conv(x)). No normalisation: statistics of a tile would show at its seams (arXiv 2503.19545)."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.conv(x), LEAK)


class Convolve(Protocol):
    """Computes what `UNet.convolve` does of this network."""

    def __call__(self, network: "UNet", x: Tensor, further: Tensor | None = None) -> Tensor: ...


class UNet(nn.Module):
    """(N, in, T, T) to (N, out, T, T) logits, T a multiple of its coarsest cell; skips are added, not concatenated.

    Pixel unshuffle keeps the full-resolution layers cheap, nearest upsampling and a pixel shuffle with ICNR weights
    keep the grid out (arXiv 1707.02937; Odena et al. 2016 on transposed convolutions).
    """

    compiled: Convolve | None = None
    """Computes `convolve` in its place where it is set, see `restoration/cpu.py`."""

    def __init__(self, in_channels: int, out_channels: int, channels: tuple[int, ...], dilations: tuple[int, ...]):
        super().__init__()
        self.stem = nn.Conv2d(in_channels * 4, channels[0], 3, padding=1)
        self.encoders = nn.ModuleList(ResidualConv(c) for c in channels[:-1])
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(channels)
        )
        self.context = nn.Sequential(*(ResidualConv(channels[-1], dilation) for dilation in dilations))
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(channels))
        self.decoders = nn.ModuleList(ResidualConv(c) for c in channels[:-1])
        self.head = nn.Conv2d(channels[0], out_channels * 4, 3, padding=1)
        self.radius_px = _receptive_radius_px(len(channels), dilations)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=LEAK)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for residual in self.modules():
            if isinstance(residual, ResidualConv):  # without norm, a sum of full-strength branches would grow
                residual.conv.weight.data.mul_(0.5)
        # ICNR: the four phases of the pixel shuffle start equal, so that no checkerboard is there to unlearn
        phases = self.head.weight.data[::4].mul(0.5)
        self.head.weight.data.copy_(phases.repeat_interleave(4, dim=0))

    @property
    def further_stem(self) -> nn.Conv2d | None:
        """Of what it is shown beside its planes."""
        return None

    @property
    def heads(self) -> tuple[nn.Conv2d, ...]:
        """All that say something of the features."""
        return (self.head,)

    def forward(self, x: Tensor) -> Tensor:
        (logits,) = self.answer(x)
        return logits

    def answer(self, x: Tensor, further: Tensor | None = None) -> tuple[Tensor, ...]:
        """x: (N, in, T, T); further: (N, _, T/2, T/2), what `further_stem` takes. Returns each head's (N, _, T, T)."""
        answers = self.compiled(self, x, further) if self.compiled else self.convolve(x, further)
        return torch.split(answers, [head.out_channels // 4 for head in self.heads], dim=1)

    def convolve(self, x: Tensor, further: Tensor | None = None) -> Tensor:
        """All heads' answers, (N, _, T, T); see `answer`."""
        x = self.stem(F.pixel_unshuffle(x, 2))
        if self.further_stem is not None and further is not None:
            x = x + self.further_stem(further)
        x = F.leaky_relu(x, LEAK)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = F.leaky_relu(down(x), LEAK)
        x = self.context(x)  # (N, c, T/8, T/8) with three levels
        for up, decoder, skip in zip(
            reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True
        ):  # coarse to fine
            x = decoder(self.enlarge(up, x) + skip)
        return F.pixel_shuffle(torch.cat([head(x) for head in self.heads], dim=1), 2)

    def enlarge(self, up: nn.Module, x: Tensor) -> Tensor:
        """(N, c, T, T) to (N, c', 2 T, 2 T)."""
        x = up(x)
        if torch.compiler.is_compiling():  # Inductor scatters an interpolation's gradients one by one
            n, c, height, width = x.shape
            return x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(n, c, 2 * height, 2 * width)
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class KeepingUNet(UNet):
    """A filler that adds to what it paints the share that it keeps of what it sees, sample by sample.

    Under a translucent stain, in a false alarm or at a mask's rim the picture is still there: a copy that has to pass
    through the network loses grain and detail. Under opaque damage the share falls to 0, and nothing of it shines
    through, as it would in a residual on the damaged sample.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: tuple[int, ...], dilations: tuple[int, ...]):
        super().__init__(in_channels, out_channels, channels, dilations)
        self.keep_head = _share_head(channels[0], LITTLE_KEPT)

    @property
    def heads(self) -> tuple[nn.Conv2d, ...]:
        return (self.head, self.keep_head)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, in, T, T), the first `out` of its channels being what is seen; returns (N, out, T, T)."""
        return self.keep(x, *self.answer(x))

    def keep(self, x: Tensor, paint: Tensor, keep_logits: Tensor) -> Tensor:
        """paint: (N, out, T, T); keep_logits: (N, 1, T, T); see `forward` for the others."""
        kept = torch.sigmoid(keep_logits.float())
        seen = x[:, : paint.shape[1]].float()  # bfloat16 would round what is kept to a level
        return paint.float().addcmul(kept, seen)


class PrefilledUNet(KeepingUNet):
    """A filler that starts where smooth inpainting ends: it adds the share that it takes of that, sample by sample.

    Under specks and scratches a smooth fill is hard to better. Painted outright, every sample of it has to pass through
    the network.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: tuple[int, ...], dilations: tuple[int, ...]):
        super().__init__(in_channels, out_channels, channels, dilations)
        self.smooth_stem = nn.Conv2d(out_channels, channels[0], 3, padding=1, bias=False)
        self.take_head = _share_head(channels[0], LITTLE_TAKEN)
        nn.init.zeros_(self.smooth_stem.weight)  # a filler that was not shown it goes on as it was

    @property
    def further_stem(self) -> nn.Conv2d:
        return self.smooth_stem

    @property
    def heads(self) -> tuple[nn.Conv2d, ...]:
        return (self.head, self.keep_head, self.take_head)

    def fill(self, x: Tensor, smooth: Tensor) -> Tensor:
        """x: (N, in, T, T), the first `out` of its channels being what is seen; smooth: (N, out, T, T)."""
        paint, keep_logits, take_logits = self.answer(x, _halve(smooth))
        return self.keep(x, paint, keep_logits).addcmul(torch.sigmoid(take_logits.float()), smooth)


def _share_head(channels: int, logit: float) -> nn.Conv2d:
    """Says a share of each sample, the same of all at first."""
    head = nn.Conv2d(channels, 4, 3, padding=1)
    nn.init.zeros_(head.weight)
    head.bias = nn.Parameter(torch.full((4,), logit))
    return head


class TellingUNet(UNet):
    """A detector that is told what it made of the photo's coarser copy, and tells the finer one.

    From within 61 px a broad white bar is a white wall. On a smaller copy both of its edges are in sight; what was seen
    there comes along as planes of the network's own making, trained end to end over several scales. So the map still
    depends on nothing but what lies within a tile's margin, at each scale.
    """

    def __init__(self, num_planes: int, channels: tuple[int, ...], dilations: tuple[int, ...]) -> None:
        super().__init__(3, 1, channels, dilations)
        self.context_stem = nn.Conv2d(num_planes, channels[0], 3, padding=1, bias=False)
        self.context_head = nn.Conv2d(channels[0], 4 * num_planes, 1)
        nn.init.zeros_(self.context_stem.weight)  # a release that was told nothing goes on as it was

    @property
    def further_stem(self) -> nn.Conv2d:
        return self.context_stem

    @property
    def heads(self) -> tuple[nn.Conv2d, ...]:
        return (self.head, self.context_head)

    def look(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: (N, 3, T, T); context: (N, num_planes, T/2, T/2) in [0, 1] or None.

        Returns logits, (N, 1, T, T), and what is told, (N, num_planes, T, T) in [0, 1].
        """
        logits, told_logits = self.answer(x, context)
        return logits, torch.sigmoid(told_logits)


class Denoiser(UNet):
    """(N, 3, T, T) in [0, 1] to what to add to it.

    To say outright what the noise is, a network must carry every sample's own through all of its layers. So the photo
    is taken apart, in luma and chroma, into bands of detail (the a-trous wavelet transform, Holschneider et al. 1989),
    and the network says of each sample of each band what share of it is noise: wavelet shrinkage (Donoho and Johnstone
    1994), learnt. What no share can mend, such as the edges of JPEG's blocks, it adds.
    """

    to_luma_chroma: Tensor
    from_luma_chroma: Tensor
    mid_grey: Tensor

    def __init__(self, channels: tuple[int, ...], dilations: tuple[int, ...], num_bands: int) -> None:
        super().__init__(3 + 3 * num_bands, 3 + 3 * num_bands, channels, dilations)
        self.num_bands = num_bands
        # Buffers: made when they are needed, they would have to be waited for on a GPU, and no graph could be recorded
        to_luma_chroma = torch.tensor(TO_LUMA_CHROMA)
        self.register_buffer("to_luma_chroma", to_luma_chroma, persistent=False)
        self.register_buffer("from_luma_chroma", torch.linalg.inv(to_luma_chroma), persistent=False)
        self.register_buffer("mid_grey", torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1), persistent=False)
        self.radius_px += (1 << num_bands) - 1
        if self.radius_px > MOST_DENOISER_RADIUS_PX:
            raise ValueError(f"the denoiser sees {self.radius_px} px, more than {MOST_DENOISER_RADIUS_PX}")
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(torch.tensor([0.0] * 3 + [LITTLE_NOISE] * 3 * num_bands).repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        in_luma_chroma = _mix_channels(self.to_luma_chroma, x) - self.mid_grey  # luma in [-0.5, 0.5], as the others
        bands, rest = split_bands(in_luma_chroma, self.num_bands)
        planes = torch.cat([*(BAND_GAIN * band for band in bands), rest], dim=1)
        answer = super().forward(planes).float()
        added, *shares = torch.split(answer, 3, dim=1)
        noise = -added
        for share, band in zip(shares, bands, strict=True):
            noise = noise.addcmul(torch.sigmoid(share), band)
        return -_mix_channels(self.from_luma_chroma, noise)


def split_bands(planes: Tensor, num_bands: int) -> tuple[list[Tensor], Tensor]:
    """Bands of detail, the finest first, and what is left: (N, C, H, W) each; their sum is `planes`.

    Each band is what the next wider binomial filter takes away.
    """
    bands = []
    for band in range(num_bands):
        softer = _soften_by_binomial(planes, 1 << band)
        bands.append(planes - softer)
        planes = softer
    return bands, planes


def _soften_by_binomial(planes: Tensor, spacing_px: int) -> Tensor:
    """1-2-1 in both directions, the taps `spacing_px` apart."""
    p = spacing_px
    padded = F.pad(planes, (p, p, p, p), mode="replicate")
    rows = (padded[:, :, : -2 * p] + padded[:, :, 2 * p :]).add_(padded[:, :, p:-p], alpha=2.0)
    softer = (rows[..., : -2 * p] + rows[..., 2 * p :]).add_(rows[..., p:-p], alpha=2.0)
    return softer.mul_(1.0 / 16.0)


def _mix_channels(matrix: Tensor, planes: Tensor) -> Tensor:
    """(3, 3) times (N, 3, H, W). Not a matrix product: autocast would round its samples to bfloat16."""
    first, *others = zip(matrix.view(1, 3, 3, 1, 1).unbind(dim=2), torch.split(planes, 1, dim=1), strict=True)
    mixed = torch.mul(*first)
    for column, plane in others:
        mixed = mixed.addcmul_(column, plane)
    return mixed


def fill_smoothly(tiles: Tensor, mask: Tensor) -> Tensor:
    """What is masked filled from its surroundings, near ones before far ones: pull and push (Gortler et al. 1996).

    Each smaller copy holds the means of the samples that are known, and is believed as far as there are any; what is
    not known is interpolated from it. tiles: (N, C, H, W); mask: (N, 1, H, W), 0 or 1; returns (N, C, H, W) float32,
    0.5 where a tile is masked throughout.
    """
    known = 1.0 - mask.float()
    copies = [torch.cat([tiles.float() * known, known], dim=1).contiguous()]  # colours, as far as known, and how far
    while min(copies[-1].shape[-2:]) > COARSEST_FILL_PX and all(side_px % 2 == 0 for side_px in copies[-1].shape[-2:]):
        halved = _halve_softly(copies[-1])
        weight = halved[:, -1:]
        believed = (4.0 * weight).clamp_(max=1.0)  # one of four known samples is enough
        copies.append(halved.mul_(believed / weight.clamp(min=1e-6)))
    coarsest = copies.pop()
    known = coarsest[:, -1:]
    filled = torch.where(known > 0.0, coarsest[:, :-1] / known.clamp(min=1e-6), 0.5)
    for copy in reversed(copies):
        filled = _double_softly(filled).mul_(1.0 - copy[:, -1:]).add_(copy[:, :-1])
    return filled


def _double_softly(planes: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2 H, 2 W), interpolated as by `F.interpolate`, bilinear, in a quarter of its time on a
    CPU."""
    num, channels, height, width = planes.shape
    p = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    wide = planes.new_empty(num, channels, height + 2, 2 * width)
    wide[..., 0::2] = torch.lerp(p[..., 1:-1], p[..., :-2], 0.25)
    wide[..., 1::2] = torch.lerp(p[..., 1:-1], p[..., 2:], 0.25)
    doubled = planes.new_empty(num, channels, 2 * height, 2 * width)
    doubled[:, :, 0::2] = torch.lerp(wide[:, :, 1:-1], wide[:, :, :-2], 0.25)
    doubled[:, :, 1::2] = torch.lerp(wide[:, :, 1:-1], wide[:, :, 2:], 0.25)
    return doubled


def _halve(planes: Tensor) -> Tensor:
    """Means of 2 x 2: (N, C, H, W) to (N, C, H / 2, W / 2), in a fraction of `F.avg_pool2d`'s time on a CPU."""
    rows = planes[:, :, 0::2] + planes[:, :, 1::2]
    return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


def _halve_softly(planes: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H / 2, W / 2): 1-3-3-1 in both directions."""
    p = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    rows = (p[:, :, 1:-2:2] + p[:, :, 2:-1:2]).mul_(3.0).add_(p[:, :, :-3:2]).add_(p[:, :, 3::2])
    halved = (rows[..., 1:-2:2] + rows[..., 2:-1:2]).mul_(3.0).add_(rows[..., :-3:2]).add_(rows[..., 3::2])
    return halved.mul_(1.0 / 64.0)


def soften(photos: Tensor) -> Tensor:
    """Mean of each pixel and its eight neighbours: (N, C, H, W)."""
    padded = F.pad(photos, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]  # a third of avg_pool2d's time on a CPU
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9.0


def _receptive_radius_px(num_levels: int, dilations: tuple[int, ...]) -> int:
    """How far from a sample of a UNet's answer its receptive field reaches.

    Stem, head, and at each level an encoder, a strided convolution and a decoder see one cell around; the sample may
    lie at either end of its coarsest cell.
    """
    *fine_px, coarsest_px = [1 << (level + 1) for level in range(num_levels)]
    return 2 * 2 + 3 * sum(fine_px) + coarsest_px * sum(dilations) + coarsest_px - 1
