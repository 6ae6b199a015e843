"""The golden self-test: a release must still make of its golden photo what it made when it was published."""

from dataclasses import dataclass

import numpy as np

from restoration.errors import PhotoError, ReleaseInvalid
from restoration.photo import Photo, decode_photo
from restoration.release import Release

DAMAGED = "golden/damaged.png"
RESTORED = "golden/restored.png"
DAMAGE_MAP = "golden/damage_map.png"


@dataclass(frozen=True, eq=False)
class Golden:
    """A damaged photo and what was made of it: (H, W, C) uint8 samples, and the damage map, (H, W) uint8."""

    damaged: Photo
    restored: np.ndarray
    damage_map: np.ndarray


def read_golden(release: Release) -> Golden:
    """Raises ReleaseInvalid if the golden files are missing, undecodable or not of one size."""
    damaged, restored, damage_map = (_read_png(release, name) for name in (DAMAGED, RESTORED, DAMAGE_MAP))
    height_px, width_px = damaged.height_px, damaged.width_px
    if restored.samples.shape != damaged.samples.shape or damage_map.samples.shape != (height_px, width_px, 1):
        raise ReleaseInvalid(f"release {release.version}: the golden files are not of one size; publish it again")
    return Golden(damaged, restored.samples, damage_map.samples[:, :, 0])


def check_golden(release: Release, golden: Golden, samples: np.ndarray, damage_map: np.ndarray) -> None:
    """samples: (H, W, C) uint8, damage_map: (H, W) uint8, what was made of the golden photo now.

    Raises ReleaseInvalid if that is farther from the golden files than the manifest allows.
    """
    tolerance = release.manifest.golden_tolerance
    written = ((samples != golden.damaged.samples) | (golden.restored != golden.damaged.samples)).any(axis=2)
    restored_levels = _difference(samples[written], golden.restored[written])
    measures = (
        ("damage map, mean", _mean(_difference(damage_map, golden.damage_map)), tolerance.damage_map_mean_levels),
        ("restored, mean", _mean(restored_levels), tolerance.restored_mean_levels),
        ("restored, far", _mean(restored_levels > tolerance.restored_far_levels), tolerance.restored_far_share),
    )
    if failed := [f"{name} {found:.3f}, allowed {limit}" for name, found, limit in measures if not found <= limit]:
        raise ReleaseInvalid(
            f"release {release.version}: its self-test differs from the golden files ({'; '.join(failed)}); "
            "publish it again, or try precision float32"
        )


def _read_png(release: Release, name: str) -> Photo:
    try:
        return decode_photo(release.read(name))
    except PhotoError as error:
        raise ReleaseInvalid(
            f"release {release.version}: {name} cannot be decoded ({error}); publish it again"
        ) from error


def _difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of uint8 samples, in levels, without wrapping around."""
    return np.abs(found.astype(np.int16) - expected.astype(np.int16))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
