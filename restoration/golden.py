"""The golden self-test: a release must still make of its golden photo what it made when it was published.

It tests the generator on its device, not the rules by which a map becomes opacities: those are the code's, they
improve from version to version, and every release must outlive that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from restoration.errors import PhotoError, ReleaseInvalid
from restoration.passes import Seen, TilePass
from restoration.photo import Photo, decode_photo
from restoration.release import GoldenTolerance, Release
from restoration.tile_generator import TileGenerator
from restoration.toning import find_tone

DAMAGED = "golden/damaged.png"
RESTORED = "golden/restored.png"
DAMAGE_MAP = "golden/damage_map.png"
VERIFIED_MAP = "golden/verified_map.png"
"""Of releases that have a verifier: its map, of all of the photo. It decides then; the other says what is suspect."""
DENOISED = "golden/denoised.png"
"""Of releases that have a denoiser: the damaged photo, its noise taken out."""
MAPS = frozenset((DAMAGE_MAP, VERIFIED_MAP))
FILLED_FROM = 128
"""Level of the damage map from which on the golden photo is filled when a release is published."""


@dataclass(frozen=True, eq=False)
class Golden:
    """A damaged photo and what was made of it, by the file's name: maps, (H, W) uint8, and samples, (H, W, C) uint8.

    Where there is no verifier, no denoiser, their files are missing."""

    damaged: Photo
    made: Mapping[str, np.ndarray]

    @property
    def written(self) -> np.ndarray:
        """(H, W) bool: where the release has changed the photo."""
        changed: np.ndarray = (self.made[RESTORED] != self.damaged.samples).any(axis=2)
        return changed


def make_golden(damaged: Photo, generator: TileGenerator, mask: np.ndarray | None = None) -> Golden:
    """Have the generator fill the photo under mask, (H, W) bool, or else wherever it rather sees damage than not."""
    colour, one_pass = damaged.colour(), TilePass(generator)
    tone = find_tone(colour)
    shown = tone.to_grey(colour) if tone else colour
    decisive, _ = one_pass.look_once(shown)
    made = {DAMAGE_MAP: decisive}
    if generator.has_verifier:
        made[VERIFIED_MAP] = decisive = np.full_like(decisive, 255)  # suspect everywhere
        one_pass.look_again([Seen(shown, decisive)])
    mask = decisive >= FILLED_FROM if mask is None else mask
    filled = one_pass.fill(colour, mask, np.ones_like(mask))
    if tone:
        tone.lay_on(filled, mask)
    made[RESTORED] = damaged.with_colour(filled, mask)
    if generator.has_denoiser:
        made[DENOISED] = damaged.with_corrections(damaged.samples, one_pass.corrections(colour))
    return Golden(damaged, made)


def read_golden(release: Release) -> Golden:
    """Raises ReleaseInvalid if the golden files are missing, undecodable, not of 8 bits or not of one size."""
    damaged, made = _read_png(release, DAMAGED), {}
    for name in (DAMAGE_MAP, RESTORED, *({VERIFIED_MAP, DENOISED} & release.manifest.files.keys())):
        samples = _read_png(release, name).samples
        made[name] = samples[:, :, 0] if name in MAPS and samples.shape[2] == 1 else samples
        if made[name].shape != damaged.samples.shape[: 2 if name in MAPS else 3]:
            raise ReleaseInvalid(f"release {release.version}: {name} is of another size; publish it again")
    return Golden(damaged, made)


def check_golden(release: Release, golden: Golden, generator: TileGenerator) -> None:
    """Raises ReleaseInvalid if what the generator makes of the golden photo is farther from the golden files than the
    manifest allows."""
    written, tolerance = golden.written, release.manifest.golden_tolerance
    found = make_golden(golden.damaged, generator, written)
    measures = []
    for name, made in found.made.items():
        if name not in golden.made:
            raise ReleaseInvalid(f"release {release.version}: it makes {name}, but has none; publish it again")
        levels = _difference(made, golden.made[name])
        levels = levels[written] if name == RESTORED else levels
        what = PurePath(name).stem.replace("_", " ")
        measures.append((f"{what}, mean", _mean(levels), _allowed_mean(tolerance)[name]))
        if name == RESTORED:
            far = _mean(levels > tolerance.restored_far_levels)
            measures.append((f"{what}, far", far, tolerance.restored_far_share))
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


def _allowed_mean(tolerance: GoldenTolerance) -> dict[str, float]:
    return {
        DAMAGE_MAP: tolerance.damage_map_mean_levels,
        VERIFIED_MAP: tolerance.damage_map_mean_levels,
        RESTORED: tolerance.restored_mean_levels,
        DENOISED: tolerance.denoised_mean_levels,
    }


def _difference(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of uint8 samples, in levels, without wrapping around."""
    return np.abs(found.astype(np.int16) - expected.astype(np.int16))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
