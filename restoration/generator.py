"""What every generator offers, on batches of tiles, and ours: `detect-fill`, of small U-Nets of which one finds the
damage and another, the Pix2Pix generator proper, paints what was there. What happens between the calls is the
restorer's.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restoration.unets import Denoiser, KeepingUNet, PrefilledUNet, TellingUNet, UNet, fill_smoothly

ERASED = 0.5
"""The value that an erased sample has in front of the filler."""
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
