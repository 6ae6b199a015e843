"""The golden self-test: a release must still make of its golden photo what it made when it was published.

It tests the generator on its device, not the rules by which a map becomes opacities: those are the code's, they
improve from version to version, and every release must outlive that.
"""

from dataclasses import dataclass

import numpy as np

from restoration.device import TileGenerator
from restoration.errors import PhotoError, ReleaseInvalid
from restoration.passes import Seen, TilePass
from restoration.photo import Photo, decode_photo
from restoration.release import Release
from restoration.toning import find_tone

DAMAGED = "golden/damaged.png"
RESTORED = "golden/restored.png"
DAMAGE_MAP = "golden/damage_map.png"
VERIFIED_MAP = "golden/verified_map.png"
"""Of releases that have a verifier: its map, of all of the photo. It decides then; the other says what is suspect."""
DENOISED = "golden/denoised.png"
"""Of releases that have a denoiser: the damaged photo, its noise taken out."""
FILLED_FROM = 128
"""Level of the damage map from which on the golden photo is filled when a release is published."""


@dataclass(frozen=True, eq=False)
class Golden:
    """A damaged photo and what was made of it: (H, W, C) uint8 samples, and the damage map, (H, W) uint8.

    verified_map, denoised: None where there is no verifier, no denoiser."""

    damaged: Photo
    restored: np.ndarray
    damage_map: np.ndarray
    verified_map: np.ndarray | None = None
    denoised: np.ndarray | None = None

    @property
    def written(self) -> np.ndarray:
        """(H, W) bool: where the release has changed the photo."""
        changed: np.ndarray = (self.restored != self.damaged.samples).any(axis=2)
        return changed


def make_golden(damaged: Photo, generator: TileGenerator, mask: np.ndarray | None = None) -> Golden:
    """Have the generator fill the photo under mask, (H, W) bool, or else wherever it rather sees damage than not."""
    colour, one_pass = damaged.colour(), TilePass(generator)
    tone = find_tone(colour)
    shown = tone.to_grey(colour) if tone else colour
    damage_map, _ = one_pass.look_once(shown)
    verified_map = None
    if generator.has_verifier:
        verified_map = np.full_like(damage_map, 255)  # suspect everywhere
        one_pass.look_again([Seen(shown, verified_map)])
    decisive = damage_map if verified_map is None else verified_map
    mask = decisive >= FILLED_FROM if mask is None else mask
    filled = one_pass.fill(colour, mask, np.ones_like(mask))
    if tone:
        tone.lay_on(filled, mask)
    denoised = None
    if generator.has_denoiser:
        denoised = damaged.with_corrections(damaged.samples, one_pass.corrections(colour))
    return Golden(damaged, damaged.with_colour(filled, mask), damage_map, verified_map, denoised)


def read_golden(release: Release) -> Golden:
    """Raises ReleaseInvalid if the golden files are missing, undecodable, not of 8 bits or not of one size."""
    damaged, restored, damage_map = (_read_png(release, name) for name in (DAMAGED, RESTORED, DAMAGE_MAP))
    height_px, width_px = damaged.height_px, damaged.width_px
    if restored.samples.shape != damaged.samples.shape or damage_map.samples.shape != (height_px, width_px, 1):
        raise ReleaseInvalid(f"release {release.version}: the golden files are not of one size; publish it again")
    verified_map = _read_part(release, VERIFIED_MAP, damage_map.samples.shape)
    denoised = _read_part(release, DENOISED, damaged.samples.shape)
    return Golden(
        damaged,
        restored.samples,
        damage_map.samples[:, :, 0],
        None if verified_map is None else verified_map[:, :, 0],
        denoised,
    )


def check_golden(release: Release, golden: Golden, generator: TileGenerator) -> None:
    """Raises ReleaseInvalid if what the generator makes of the golden photo is farther from the golden files than the
    manifest allows."""
    if generator.has_verifier and golden.verified_map is None:
        raise ReleaseInvalid(f"release {release.version}: it has a verifier, but no {VERIFIED_MAP}; publish it again")
    if generator.has_denoiser and golden.denoised is None:
        raise ReleaseInvalid(f"release {release.version}: it has a denoiser, but no {DENOISED}; publish it again")
    tolerance = release.manifest.golden_tolerance
    written = golden.written
    found = make_golden(golden.damaged, generator, written)
    map_levels = _difference(found.damage_map, golden.damage_map)
    restored_levels = _difference(found.restored[written], golden.restored[written])
    measures = [
        ("damage map, mean", _mean(map_levels), tolerance.damage_map_mean_levels),
        ("restored, mean", _mean(restored_levels), tolerance.restored_mean_levels),
        ("restored, far", _mean(restored_levels > tolerance.restored_far_levels), tolerance.restored_far_share),
    ]
    if found.verified_map is not None and golden.verified_map is not None:
        verified_levels = _difference(found.verified_map, golden.verified_map)
        measures.append(("verified map, mean", _mean(verified_levels), tolerance.damage_map_mean_levels))
    if found.denoised is not None and golden.denoised is not None:
        denoised_levels = _difference(found.denoised, golden.denoised)
        measures.append(("denoised, mean", _mean(denoised_levels), tolerance.denoised_mean_levels))
    if failed := [f"{name} {value:.3f}, allowed {limit}" for name, value, limit in measures if not value <= limit]:
        raise ReleaseInvalid(
            f"release {release.version}: its self-test differs from the golden files ({'; '.join(failed)}); "
            "publish it again, or try precision float32"
        )


def _read_png(release: Release, name: str) -> Photo:
    try:
        photo = decode_photo(release.read(name))
    except PhotoError as error:
        raise ReleaseInvalid(
            f"release {release.version}: {name} cannot be decoded ({error}); publish it again"
        ) from error
    if photo.samples.dtype != np.uint8:
        raise ReleaseInvalid(f"release {release.version}: {name} has 16 bits a channel, expected 8; publish it again")
    return photo


def _read_part(release: Release, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """What releases without this part do not have."""
    if name not in release.manifest.files:
        return None
    samples = _read_png(release, name).samples
    if samples.shape != shape:
        raise ReleaseInvalid(f"release {release.version}: {name} is of another size; publish it again")
    return samples


def _difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of uint8 samples, in levels, without wrapping around."""
    return np.abs(found.astype(np.int16) - expected.astype(np.int16))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
