"""The generators and their frozen configs.

`pix2pix` is the original's U-Net (Isola et al. 2017, arXiv 1611.07004), kept as the baseline.
`detect-fill` is ours: a small U-Net finds the damage, the Pix2Pix generator proper paints what was there.
Both offer `detect` and `fill` on batches of tiles; what happens between the two is the restorer's.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.errors import ReleaseInvalid
from restoration.tensors import from_signed_range, to_signed_range

ERASED = 0.5
"""The value that an erased sample has in front of the filler."""
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
TILE_MULTIPLE_PX = 32
"""What the side of a tile for our networks is a multiple of; so no cell of theirs is larger."""


class Generator(nn.Module):
    """What every generator offers. Tiles are square, their side a multiple of `tile_multiple_px`."""

    architecture: ClassVar[str]
    tile_multiple_px: ClassVar[int]
    conditions: ClassVar[tuple[str, ...]] = ()
    config: Any

    @property
    def num_context_planes(self) -> int:
        """How many planes `detect` tells the next finer copy of a photo; 0 where it sees each copy by itself."""
        return 0

    @property
    def detector_radius_px(self) -> int:
        """How far around a sample the damage map depends on the tile: the radius of the receptive field."""
        raise NotImplementedError

    @property
    def required_evidence(self) -> float:
        """For damage to be repaired at the default sensitivity, in logits of the map; see `restoration.masks`."""
        raise NotImplementedError

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """The damage map, and what is told to the same place of the next finer copy of the photo.

        tiles: (N, 3, T, T) float in [0, 1]; context: what was told by the next coarser copy, whose samples are twice as
        wide, (N, num_context_planes, T / 2, T / 2) float in [0, 1], None where there is none. Returns
        (N, 1 + num_context_planes, T, T) float in [0, 1], the damage map first.
        """
        raise NotImplementedError

    @property
    def has_verifier(self) -> bool:
        """Whether `verify` decides what `detect` suspects."""
        return False

    @property
    def verifier_turns(self) -> int:
        """In how many orientations of a tile it is asked to `verify`: what is damage does not depend on that, what a
        network errs in does."""
        return 1

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """As `detect`, by a network that takes longer and errs less; context is what it told itself.

        Not to be called without `has_verifier`.
        """
        raise NotImplementedError

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Paint what was under the mask.

        tiles: (N, 3, T, T) float in [0, 1]; mask: (N, 1, T, T), 0 or 1; conditions: (N, len(self.conditions), T, T)
        float in [0, 1], or None for each condition's default. Returns (N, 3, T, T) float in [0, 1], of which only
        the part under the mask means anything.
        """
        raise NotImplementedError

    @property
    def has_denoiser(self) -> bool:
        """Whether `denoise` can be asked for."""
        return False

    def denoise(self, tiles: Tensor) -> Tensor:
        """What to add to the tiles for their noise, grain and compression artifacts to go.

        tiles: (N, 3, T, T) float in [0, 1]; returns (N, 3, T, T) float in about [-1, 1], which depends on nothing
        farther away than `MOST_DENOISER_RADIUS_PX`. Not to be called without `has_denoiser`.
        """
        raise NotImplementedError


# --- detect-fill ----------------------------------------------------------------------------------------------------

CALIBRATED = ("detector_scale", "detector_shift", "verifier_scale", "verifier_shift", "required_evidence")
"""What of a config is found once the networks are trained."""


@dataclass(frozen=True)
class DetectFillConfig:
    """Channels at 1/2, 1/4, 1/8 ... of the tile's side; dilations of the blocks at the last of these.

    The detector's defaults keep its receptive field within half of the overlap of two tiles, so that its map does not
    depend on where the tiles lie.
    """

    detector_channels: tuple[int, ...] = (32, 48, 96)
    detector_dilations: tuple[int, ...] = (1, 1, 1, 1)
    filler_channels: tuple[int, ...] = (40, 80, 144, 224)
    filler_dilations: tuple[int, ...] = (1, 2, 4, 8, 1)
    denoiser_channels: tuple[int, ...] = ()
    """None: the generator has no denoiser, as releases up to 0005."""
    denoiser_dilations: tuple[int, ...] = (1, 1, 1)
    denoiser_bands: int = 3
    """Bands of detail of which the denoiser says what share is noise."""
    filler_keeps: bool = False
    """Whether the filler says of each sample how much of what it sees it keeps; releases up to 0003 could not."""
    filler_prefills: bool = False
    """Whether the filler is shown the smooth fill, and takes a share of it; releases up to 0009 were not. It keeps,
    then, too."""
    detector_context: int = 0
    """Planes that the detector tells the next finer copy of a photo; releases up to 0005 saw each copy by itself."""
    detector_scale: float = 1.0
    """What the detector's logits are multiplied by: how much more a sure sample says than a doubtful one."""
    detector_shift: float = 0.0
    """Subtracted from them after that. The detector is trained where most pictures are damaged and misses weigh more
    than alarms; most samples of a scan are not damaged (prior shift, Saerens et al. 2002)."""
    verifier_channels: tuple[int, ...] = ()
    """Of a larger detector that decides what the first suspects. None: the first decides, in four orientations, as in
    releases up to 0007."""
    verifier_dilations: tuple[int, ...] = (1, 1, 1, 1)
    verifier_turns: int = 1
    """In how many orientations it looks, 1 to 4; release 0008's in one."""
    verifier_scale: float = 1.0
    verifier_shift: float = 0.0
    """As the detector's: with a verifier they decide, and the detector's only say what is suspect."""
    required_evidence: float = 12.0
    """For damage to be repaired at the default sensitivity, see `restoration.masks`; so high while not calibrated."""

    def __post_init__(self) -> None:
        for network in ("detector", "filler", "denoiser", "verifier"):
            self._check_shape(network)
        for name in CALIBRATED:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a finite number")
        for name in ("detector_scale", "verifier_scale"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.denoiser_channels and self.denoiser_bands < 1:
            raise ValueError(f"denoiser_bands is {self.denoiser_bands}, expected at least 1")
        if not 1 <= self.verifier_turns <= 4:
            raise ValueError(f"verifier_turns is {self.verifier_turns}, expected 1 to 4")
        if self.filler_prefills and not self.filler_keeps:
            raise ValueError("filler_prefills needs filler_keeps: what is taken is added to what is kept")
        if self.verifier_channels and not self.detector_context:
            raise ValueError("a verifier needs detector_context of at least 1: it tells itself as much as the detector")

    def _check_shape(self, network: str) -> None:
        channels, dilations = getattr(self, f"{network}_channels"), getattr(self, f"{network}_dilations")
        if min((*channels, *dilations), default=1) < 1:
            raise ValueError(f"the {network} has channels {channels} and dilations {dilations}, expected at least 1")
        if TILE_MULTIPLE_PX % (1 << len(channels)):
            raise ValueError(
                f"{network}_channels are of {len(channels)} levels, expected at most 5, for cells of 32 px"
            )


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


class DetectFill(Generator):
    """Detect, erase, fill: two U-Nets with skip connections in one release, and if so configured one to verify and one
    to denoise.

    Most of a scan is undamaged, and the detector is soon done with it. What it suspects goes to the verifier, a larger
    detector. A look of it is as much work as those of the first one in four orientations, which releases without it
    have.

    Condition `see_through`: 1 where the filler may look at the damaged samples (a translucent stain still shows what is
    under it, and a false alarm comes back as it was), 0 where they are erased before it looks. Default 1.
    """

    architecture = "detect-fill"
    tile_multiple_px = TILE_MULTIPLE_PX
    conditions = ("see_through",)

    def __init__(self, config: DetectFillConfig | None = None) -> None:
        super().__init__()
        self.config = config or DetectFillConfig()
        shape = (self.config.detector_channels, self.config.detector_dilations)
        self.detector: UNet = (
            TellingUNet(self.config.detector_context, *shape) if self.config.detector_context else UNet(3, 1, *shape)
        )
        self.verifier: TellingUNet | None = None
        if self.config.verifier_channels:
            verifier_shape = (self.config.verifier_channels, self.config.verifier_dilations)
            self.verifier = TellingUNet(self.config.detector_context, *verifier_shape)
        filler: type[UNet] = KeepingUNet if self.config.filler_keeps else UNet
        if self.config.filler_prefills:
            filler = PrefilledUNet
        self.filler = filler(3 + 2, 3, self.config.filler_channels, self.config.filler_dilations)
        self.denoiser: Denoiser | None = None
        if self.config.denoiser_channels:
            denoiser_shape = (self.config.denoiser_channels, self.config.denoiser_dilations)
            self.denoiser = Denoiser(*denoiser_shape, self.config.denoiser_bands)

    @property
    def detector_radius_px(self) -> int:
        return max(self.detector.radius_px, self.verifier.radius_px if self.verifier else 0)

    @property
    def required_evidence(self) -> float:
        return float(self.config.required_evidence)

    @property
    def num_context_planes(self) -> int:
        return int(self.config.detector_context)

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        logits, told = self.detect_logits(tiles, context)
        damage_map = torch.sigmoid(logits.float() * self.config.detector_scale - self.config.detector_shift)
        return damage_map if told is None else torch.cat([damage_map, told.float()], dim=1)

    def detect_logits(self, tiles: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """`detect` before scale, shift and sigmoid, for the loss: logits, and what is told if anything is."""
        if isinstance(self.detector, TellingUNet):
            return self.detector.look(tiles - 0.5, context)
        return self.detector(tiles - 0.5), None

    @property
    def has_verifier(self) -> bool:
        return self.verifier is not None

    @property
    def verifier_turns(self) -> int:
        return int(self.config.verifier_turns)

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        logits, told = self.verify_logits(tiles, context)
        damage_map = torch.sigmoid(logits.float() * self.config.verifier_scale - self.config.verifier_shift)
        return torch.cat([damage_map, told.float()], dim=1)

    def verify_logits(self, tiles: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`verify` before scale, shift and sigmoid, as `detect_logits`."""
        assert self.verifier is not None  # see `has_verifier`
        return self.verifier.look(tiles - 0.5, context)

    @property
    def has_denoiser(self) -> bool:
        return self.denoiser is not None

    def denoise(self, tiles: Tensor) -> Tensor:
        assert self.denoiser is not None  # see `has_denoiser`
        correction: Tensor = self.denoiser(tiles)
        return correction.float()

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self.fill_unclipped(tiles, mask, conditions).float().clamp(0.0, 1.0)

    def fill_unclipped(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """`fill` before clipping, for the loss: a clipped sample would have no gradient."""
        see_through = torch.ones_like(mask) if conditions is None else conditions
        erased = mask * (1.0 - see_through)
        seen_less_grey = (tiles - ERASED) * (1.0 - erased)
        planes = torch.cat([seen_less_grey, mask, mask * see_through], dim=1)
        if isinstance(self.filler, PrefilledUNet):
            from_grey = self.filler.fill(planes, fill_smoothly(tiles, mask) - 0.5)
        else:
            from_grey = self.filler(planes)
        return from_grey.float() + 0.5  # in bfloat16 the sum would lose half a level


# --- pix2pix --------------------------------------------------------------------------------------------------------


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


# --- by name --------------------------------------------------------------------------------------------------------

ARCHITECTURES: dict[str, tuple[type[Generator], type]] = {
    DetectFill.architecture: (DetectFill, DetectFillConfig),
    Pix2Pix.architecture: (Pix2Pix, Pix2PixConfig),
}


def build_generator(architecture: str, config: Mapping[str, object]) -> Generator:
    """Build an untrained generator from its name and config as a manifest holds them.

    Raises ReleaseInvalid for a name or a config field that this version does not know.
    """
    if architecture not in ARCHITECTURES:
        raise ReleaseInvalid(f"architecture {architecture!r} is not known here; known are {', '.join(ARCHITECTURES)}")
    generator_type, config_type = ARCHITECTURES[architecture]
    known = {field.name for field in dataclasses.fields(config_type)}
    if unknown := sorted(set(config) - known):
        raise ReleaseInvalid(
            f"{architecture} config has unknown fields {', '.join(unknown)}; known are {sorted(known)}"
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    try:
        return generator_type(config_type(**values))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ReleaseInvalid(f"{architecture} cannot be built from config {dict(config)}: {error}") from error


def config_of(generator: Generator) -> dict[str, object]:
    """The config as a manifest holds it: plain JSON values."""
    values: dict[str, object] = dataclasses.asdict(generator.config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
