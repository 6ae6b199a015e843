"""Toned prints: sepia, selenium, a faded grey one. Their colour follows from their brightness alone.

What the toning adds says nothing about damage, but such a photo is less like what the detector was trained on: of a
sepia portrait it took the lit half of the face for a hole. So it is shown these photos in grey.
"""

import numpy as np

MAX_RESIDUAL_LEVELS = 3.0
"""A print is toned if its colours differ from the mean colour at their brightness by no more than this on average."""
NUM_SAMPLES = 200_000
NUM_BINS = 32

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def view_for_detection(colour: np.ndarray) -> np.ndarray:
    """colour: (H, W, 3) uint8; returns the same, in grey if it is a toned print, else the array itself."""
    return _to_grey(colour) if is_toned(colour) else colour


def is_toned(colour: np.ndarray) -> bool:
    """Whether a photo (H, W, 3) uint8 is a print in one tone. Measured on a grid of about `NUM_SAMPLES` pixels.

    False for a photo that is grey already: there is nothing to take away.
    """
    step = max(1, int(np.sqrt(colour.shape[0] * colour.shape[1] / NUM_SAMPLES)))
    samples = colour[::step, ::step].reshape(-1, 3).astype(np.float32)
    luma = samples @ _LUMA
    chroma = samples[:, [0, 2]] - luma[:, None]  # red and blue; green follows
    if np.abs(chroma).max() < 0.5:
        return False
    bins = (luma * (NUM_BINS / 256.0)).astype(np.intp)
    count = np.bincount(bins, minlength=NUM_BINS)[:, None]
    sums = np.stack([np.bincount(bins, weights=chroma[:, each], minlength=NUM_BINS) for each in (0, 1)], axis=1)
    tone = sums / np.maximum(count, 1)
    residual_levels = float(np.abs(chroma - tone[bins]).mean())
    return residual_levels <= MAX_RESIDUAL_LEVELS


def _to_grey(colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, one plane of luma seen three times; by rows, so that no float copy of the photo is made."""
    luma = np.empty(colour.shape[:2], np.uint8)
    for row, samples in enumerate(colour):
        luma[row] = np.rint(samples @ _LUMA)
    return np.broadcast_to(luma[:, :, None], colour.shape)
