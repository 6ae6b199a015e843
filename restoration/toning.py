"""Prints in one tone: grey ones, sepia, selenium, faded. Their colour follows from their brightness alone.

What the tone adds says nothing about damage, but such a photo is less like what the detector was trained on: of a sepia
portrait it took the lit half of the face for a hole. So it is shown these photos in grey, and what the generator paints
into them takes on their tone: a colour that the print does not have would stay behind as a ghost of the damage.
"""

from dataclasses import dataclass

import numpy as np

from restoration.photo_colours import luma_of

MAX_RESIDUAL_LEVELS = 9.0
SHARE_WITHIN = 0.98
"""A print is in one tone if this share of its pixels differs by at most so much from the mean colour at its brightness.
Sepia prints and tinted film were found to reach 3 to 7 levels, colour photographs, faded ones too, 16 and more."""
NUM_SAMPLES = 50_000
NUM_BINS = 32


@dataclass(frozen=True, eq=False)
class Tone:
    """colours: (256, 3) float64 in [0, 255], the print's colour at each brightness."""

    colours: np.ndarray

    def to_grey(self, colour: np.ndarray) -> np.ndarray:
        """colour: (H, W, 3) uint8; returns the same in grey, one plane seen three times."""
        if self.is_grey:
            return colour
        luma = np.empty(colour.shape[:2], np.uint8)
        for row, samples in enumerate(colour):  # by rows, so that no float copy of the photo is made
            luma[row] = np.rint(luma_of(samples))
        return np.broadcast_to(luma[:, :, None], colour.shape)

    def lay_on(self, colour: np.ndarray, mask: np.ndarray) -> None:
        """Give the pixels of colour (H, W, 3) uint8 or uint16 under mask (H, W) bool the print's tone, in place."""
        for row, row_mask in zip(colour, mask, strict=True):
            if row_mask.any():
                luma = luma_of(row[row_mask])
                row[row_mask] = self._tone_deep(luma) if colour.dtype == np.uint16 else self._tone(luma)

    def _tone(self, luma: np.ndarray) -> np.ndarray:
        """(N,) float in [0, 255] to (N, 3)."""
        tone: np.ndarray = np.rint(self.colours)[np.rint(luma).astype(np.intp)]
        return tone

    def _tone_deep(self, luma: np.ndarray) -> np.ndarray:
        """(N,) float in [0, 65535] to (N, 3), between the levels of 8 bits, too."""
        levels = np.arange(256.0)
        return np.stack([np.rint(257.0 * np.interp(luma / 257.0, levels, plane)) for plane in self.colours.T], axis=1)

    @property
    def is_grey(self) -> bool:
        return bool((np.rint(self.colours) == np.rint(self.colours[:, :1])).all())


def find_tone(colour: np.ndarray) -> Tone | None:
    """The tone of a photo (H, W, 3) uint8, None for a colour photograph. Measured on about `NUM_SAMPLES` pixels."""
    step = max(1, int(np.sqrt(colour.shape[0] * colour.shape[1] / NUM_SAMPLES)))
    samples = colour[::step, ::step].reshape(-1, 3).astype(np.float32)
    luma = luma_of(samples)
    chroma = [plane - luma for plane in samples.T]  # by planes: numpy takes three times as long for triples
    bins = (luma * (NUM_BINS / 256.0)).astype(np.intp)
    num_samples = np.bincount(bins, minlength=NUM_BINS)
    sums = np.stack([np.bincount(bins, weights=plane, minlength=NUM_BINS) for plane in chroma], axis=1)
    mean_chroma = sums / np.maximum(num_samples, 1)[:, None]
    residual_levels = np.zeros(len(luma))
    for plane, mean in zip(chroma, mean_chroma.T, strict=True):
        np.maximum(residual_levels, np.abs(plane - mean[bins]), out=residual_levels)
    if np.quantile(residual_levels, SHARE_WITHIN) > MAX_RESIDUAL_LEVELS:
        return None
    return Tone(_colours_of(mean_chroma, num_samples > 0))


def _colours_of(mean_chroma: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """mean_chroma: (NUM_BINS, 3) in levels; is_known: (NUM_BINS,) bool. Returns (256, 3) float64, interpolated."""
    centres = (np.arange(NUM_BINS) + 0.5) * (256.0 / NUM_BINS)
    luma = np.arange(256.0)
    colours = [luma + np.interp(luma, centres[is_known], plane[is_known]) for plane in mean_chroma.T]
    table: np.ndarray = np.clip(np.stack(colours, axis=1), 0, 255)
    return table
