"""Real generators with few channels and seeded weights, and what they are shown."""

import io

import numpy as np
import torch
from PIL import Image

from restoration.architectures import build_generator
from restoration.generator import Generator
from restoration.unets import Denoiser

SMALL = {"detector_channels": [8, 12, 16, 16], "filler_channels": [8, 12, 16, 24]}


def make_generator(*, seed: int = 0, damage_logit: float | None = None, **config: object) -> Generator:
    """A small generator with random weights. Given a logit, its detector says that everywhere, whatever it sees."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator("detect-fill", SMALL | config).eval()
    for network in (generator.detector, generator.filler):
        network.head.weight.data.mul_(0.1)  # untrained logits are so large that bfloat16 rounds them by many levels
    if damage_logit is not None:
        generator.detector.head.weight.data.zero_()
        generator.detector.head.bias.data.fill_(damage_logit)
    return generator


def add_to_every_sample(denoiser: Denoiser, correction: float) -> None:
    """What it adds, whatever it sees: to luma, and of no band of detail does it take anything away."""
    denoiser.head.bias.data[:12] = torch.tensor([correction, 0.0, 0.0]).repeat_interleave(4)
    denoiser.head.bias.data[12:] = -100.0


def encode(samples: np.ndarray, format: str = "PNG", **options) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(samples).save(encoded, format, **options)
    return encoded.getvalue()
