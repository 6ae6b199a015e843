"""How well noise is taken out of held-out photographs, and what is lost with it.

Through the function that the service calls, as a client would ask for it. JPEG is libjpeg's own here, not the one that
the denoiser was trained on.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from restoration.device import DeviceGenerator
from restoration.restorer import RestoreOptions, restore_photo
from training.cases import Case
from training.metrics import LPIPS, psnr, ssim

GRAIN_LEVELS = (8.0, 25.0)
NOISE_LEVELS = (10.0, 35.0)
"""Standard deviations in levels."""
QUALITIES = (10, 50)
SHARES = (0.5, 1.0)
"""Values of `denoise` that are measured."""

AddNoise = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Scores = dict[str, float]
MEASURES = ("psnr", "ssim", "lpips")


def add_grain(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In all channels alike, every other time of 2 px, strongest in the middle tones."""
    height_px, width_px = photo.shape[:2]
    grain = rng.standard_normal((height_px + 1, width_px + 1))
    if rng.random() < 0.5:
        grain = (grain[1:] + grain[:-1])[:, 1:] / 2 + (grain[1:] + grain[:-1])[:, :-1] / 2  # deviation 1 again
    grain = grain[:height_px, :width_px, None] * rng.uniform(*GRAIN_LEVELS)
    tone = photo.mean(axis=2, keepdims=True) / 255.0
    return _rounded(photo + grain * (0.4 + 0.6 * 2.0 * np.sqrt(tone * (1.0 - tone))))


def add_sensor_noise(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian in each channel, every other time more of it where there is more light."""
    noise = rng.standard_normal(photo.shape) * rng.uniform(*NOISE_LEVELS)
    return _rounded(photo + (noise * 1.4 * np.sqrt(photo / 255.0) if rng.random() < 0.5 else noise))


def compress(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(photo).save(encoded, "JPEG", quality=int(rng.integers(*QUALITIES, endpoint=True)), subsampling=2)
    return np.asarray(Image.open(encoded))


def _rounded(samples: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.clip(np.rint(samples), 0, 255).astype(np.uint8)
    return rounded


KINDS: Mapping[str, AddNoise] = {"grain": add_grain, "noise": add_sensor_noise, "jpeg": compress}


def make_noisy_cases(
    photos: Sequence[np.ndarray], names: Sequence[str], *, num_per_kind: int, seed: int
) -> Iterator[Case]:
    """photos: (H, W, 3) uint8 each. Case k of every kind shows the same photo."""
    order = np.random.default_rng(seed).permutation(len(photos))
    for number, (kind, add) in enumerate(KINDS.items()):
        for index in range(num_per_kind):
            chosen = int(order[index % len(photos)])
            rng = np.random.default_rng([seed, number, index])
            yield Case(kind, names[chosen], add(photos[chosen], rng), photos[chosen])


def measure_denoising(
    cases: Iterable[Case], generator: DeviceGenerator, lpips: LPIPS | None
) -> dict[str, dict[str, Scores]]:
    """Mean scores by kind of noise, and by what was done against it; the last kind is the mean of the others."""
    methods: dict[str, Callable[[Case], np.ndarray]] = {"nothing": lambda case: case.damaged}
    methods |= {f"denoise={share:g}": partial(_denoised, generator, share) for share in SHARES}
    collected: dict[str, dict[str, list[Scores]]] = {}
    for case in cases:
        of_kind = collected.setdefault(case.family, {name: [] for name in methods})
        for name, method in methods.items():
            of_kind[name].append(_score(method(case), case.clean, lpips))
    means = {kind: {name: _mean(each) for name, each in of_kind.items()} for kind, of_kind in collected.items()}
    return means | {"mean": {name: _mean([of_kind[name] for of_kind in means.values()]) for name in methods}}


def _denoised(generator: DeviceGenerator, share: float, case: Case) -> np.ndarray:
    return restore_photo(case.photo(), generator, RestoreOptions(denoise=share)).samples


def _score(picture: np.ndarray, clean: np.ndarray, lpips: LPIPS | None) -> Scores:
    scores = {"psnr": psnr(picture, clean), "ssim": ssim(picture, clean)}
    return scores | ({"lpips": lpips(picture, clean)} if lpips else {})


def _mean(each: Sequence[Scores]) -> Scores:
    return {name: sum(scores[name] for scores in each) / len(each) for name in each[0]}
