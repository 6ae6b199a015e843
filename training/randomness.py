"""Random numbers for batches of pictures, (N, C, H, W), from a generator that is passed in."""

from collections.abc import Callable

import torch
from torch import Tensor


def uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1) float32, broadcast over a batch of pictures."""
    return torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) * (high - low) + low


def uniform_each(n: int, num: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """(N, K, 1, 1) float32: for each of K things in each picture of a batch."""
    return torch.rand(n, num, 1, 1, generator=rng, device=rng.device) * (high - low) + low


def chance(n: int, probability: float, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1) float32, 1 with the given probability, else 0."""
    return (torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < probability).float()


def change_some(photos: Tensor, probability: float, rng: torch.Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to a random part of the photos: (N, C, H, W) to the same shape."""
    chosen = (torch.rand(len(photos), generator=rng, device=rng.device) < probability).nonzero()[:, 0]
    if not len(chosen):
        return photos
    return photos.index_copy(0, chosen, change(photos[chosen]))


def normal(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=rng.device)
