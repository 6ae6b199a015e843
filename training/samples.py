"""Photographs that may be shown to anyone: those that scikit-image ships, none of them used in training."""

import numpy as np
from skimage import data

NAMES = ("astronaut", "chelsea", "coffee", "camera", "rocket", "motorcycle", "coins", "moon")


def load_sample(name: str) -> np.ndarray:
    """(H, W, 3) uint8. See scikit-image's `data/README.txt` for each picture's origin (public domain or CC0)."""
    samples = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return np.repeat(samples[:, :, None], 3, axis=2) if samples.ndim == 2 else samples


def crop_sample(name: str, side_px: int) -> np.ndarray:
    """The middle of the photograph, (side_px, side_px, 3) uint8 or as much as there is."""
    photo = load_sample(name)
    top, left = (max(0, (extent - side_px) // 2) for extent in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + side_px, left : left + side_px])
