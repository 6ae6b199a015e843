"""What the restoring knows of a network, wherever it is computed."""

from typing import Protocol

from torch import Tensor


class TileGenerator(Protocol):
    """The joint between a photo and a network: four calls on batches of tiles, CPU tensors.

    Results must not depend on what else is in the batch. `batch_size` is how many tiles a call should bring; fewer
    are fine.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def calls_at_once(self) -> int:
        """How many calls for one photo, each from a thread of its own, are worth making at once."""

    @property
    def detector_radius_px(self) -> int:
        """See `Generator.detector_radius_px`."""

    @property
    def required_evidence(self) -> float:
        """See `Generator.required_evidence`."""

    @property
    def num_context_planes(self) -> int:
        """See `Generator.num_context_planes`."""

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """The damage map and what the next finer copy is told; see `Generator.detect`.

        tiles: (N, 3, T, T) float32 in [0, 1]; returns (N, 1 + num_context_planes, T, T) float32 in [0, 1].
        """

    @property
    def has_verifier(self) -> bool:
        """Whether `verify` decides what `detect` suspects."""

    @property
    def verifier_turns(self) -> int:
        """In how many orientations to `verify`; only where `has_verifier`."""

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """As `detect`, only where `has_verifier`; see `Generator.verify`."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the condition planes that `fill` takes."""

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """tiles: (N, 3, T, T) float32 in [0, 1]; mask: (N, 1, T, T) float32, 0 or 1; returns (N, 3, T, T) float32 in
        [0, 1].

        conditions: (N, len(self.conditions), T, T) float32 in [0, 1], None where there are none.
        """

    @property
    def has_denoiser(self) -> bool:
        """Whether `denoise` may be called."""

    def denoise(self, tiles: Tensor) -> Tensor:
        """tiles: (N, 3, T, T) float32 in [0, 1]; returns what to add to them, (N, 3, T, T) float32."""


class InFrontOf:
    """A `TileGenerator` that passes tiles on to another, in a way of its own: what it says of itself is the other's."""

    generator: TileGenerator

    @property
    def batch_size(self) -> int:
        return self.generator.batch_size

    @property
    def calls_at_once(self) -> int:
        return self.generator.calls_at_once

    @property
    def detector_radius_px(self) -> int:
        return self.generator.detector_radius_px

    @property
    def required_evidence(self) -> float:
        return self.generator.required_evidence

    @property
    def num_context_planes(self) -> int:
        return self.generator.num_context_planes

    @property
    def has_verifier(self) -> bool:
        return self.generator.has_verifier

    @property
    def verifier_turns(self) -> int:
        return self.generator.verifier_turns

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.generator.conditions

    @property
    def has_denoiser(self) -> bool:
        return self.generator.has_denoiser
