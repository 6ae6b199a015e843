"""A damaged photo in, a restored one out.

    photo ── detect ──► damage map ── grade, damage, protect ──► opacities, mask
    photo, mask ── fill ──► what was under the mask ── compose ──► samples
    samples ── denoise, if it is asked for ──► samples

The mask is where an opacity is above 0. Only samples under it are written; every other one keeps its value, unless the
photo is denoised: that changes samples all over it, whatever the mask, which stays that of the damage.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypedDict, Unpack, get_args

import numpy as np
import torch

from restoration.damage_maps import encode_map
from restoration.device import (
    DeviceGenerator,
    Precision,
    PrecisionChoice,
    choose_batch_size,
    choose_device,
    choose_precision,
)
from restoration.errors import DenoiserMissing, InvalidOption, NoRelease, ReleaseError, ReleaseInvalid
from restoration.freed_memory import give_back_freed_memory
from restoration.golden import check_golden, read_golden
from restoration.masks import DEFAULT_SENSITIVITY, grade_copy, grade_damage
from restoration.passes import TILE_PX, Pass, ResizePass, TilePass
from restoration.photo import Depth, History, Photo, PhotoFormat, encode_photo
from restoration.photo_colours import bands_of, luma_of
from restoration.pyramid import PyramidPass
from restoration.release import Release, load_generator
from restoration.stores import Store
from restoration.tile_generator import TileGenerator
from restoration.toning import find_tone
from restoration.under_way import UNDER_WAY

Mode = Literal["auto", "tile", "resize"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class RestoreOptions:
    """How a photo is restored. Raises InvalidOption for a value that cannot be.

    mode: `tile` works at the photo's own scale, `resize` sees the whole photo in one tile (fast, preview quality),
    `auto` works from coarse to fine, so that damage of any width is found and filled.
    sensitivity: in [0, 1], how readily something counts as damage.
    denoise: in [0, 1], how much of the noise, the grain and the compression artifacts is taken out of the whole photo,
    after its repair and at its own scale in any mode.
    damage, protect: (H, W) bool, on the photo's stored grid. Where `damage` is set the photo is restored in any case,
    where `protect` is set it is never touched; `protect` wins.
    """

    mode: Mode = "auto"
    sensitivity: float = DEFAULT_SENSITIVITY
    denoise: float = 0.0
    damage: np.ndarray | None = None
    protect: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidOption(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        for name, value in (("sensitivity", self.sensitivity), ("denoise", self.denoise)):
            if not (math.isfinite(value) and 0.0 <= value <= 1.0):
                raise InvalidOption(f"{name} is {value}, expected a number in [0, 1]")
        for name, mask in (("damage", self.damage), ("protect", self.protect)):
            if mask is not None and (mask.ndim != 2 or mask.dtype != np.bool_):
                raise InvalidOption(f"{name} is a {mask.ndim}-dimensional {mask.dtype} array, expected (H, W) bool")

    def expect_size(self, height_px: int, width_px: int) -> None:
        """Raises InvalidOption if `damage` or `protect` is not of the photo's size."""
        for name, mask in (("damage", self.damage), ("protect", self.protect)):
            if mask is not None:
                expect_mask_size(name, mask.shape, (height_px, width_px))


def expect_mask_size(name: str, mask_px: tuple[int, ...], photo_px: tuple[int, ...]) -> None:
    """Heights and widths. Raises InvalidOption, naming the mask, if they are not the same."""
    if mask_px != photo_px:
        found, expected = (f"{width_px} x {height_px}" for height_px, width_px in (mask_px, photo_px))
        raise InvalidOption(f"{name} has {found} pixels, expected the photo's {expected}")


@dataclass(frozen=True, eq=False)
class Restoration:
    """What became of a photo.

    samples: (H, W, C) uint8 or uint16 as the photo's, its own array where nothing was to be done.
    damage_map: (H, W) uint8, what the generator took for damage, 255 is certain; mask: (H, W) bool, what was repaired.
    seconds: how long each stage took, all pages together: detect, mask, fill, compose, denoise.
    denoise: by how much all of it was denoised besides, in [0, 1].
    suspected_from: where nothing was repaired on any page, the sensitivity from which on something would be; None if no
    sensitivity would do.
    further_pages: what became of the photo's further pages.
    """

    samples: np.ndarray
    damage_map: np.ndarray
    mask: np.ndarray
    seconds: Mapping[str, float] = field(default_factory=dict)
    denoise: float = 0.0
    suspected_from: float | None = None
    further_pages: tuple["Restoration", ...] = ()

    @property
    def damage_ratio(self) -> float:
        """The share of the photo's pixels that were repaired, on all pages, in [0, 1]."""
        masks = [page.mask for page in (self, *self.further_pages)]
        return sum(np.count_nonzero(mask) for mask in masks) / sum(mask.size for mask in masks)

    def history(self, release: str) -> History:
        """What the photo's XMP is to say of it."""
        return History(release, self.damage_ratio, self.denoise)

    def encode(
        self,
        photo: Photo,
        *,
        format: PhotoFormat | None = None,
        quality: int | None = None,
        depth: Depth = "same",
        history: History | None = None,
    ) -> bytes:
        """`encode_photo` of every page; photo is the one that was restored."""
        further_pages = [page.samples for page in self.further_pages]
        return encode_photo(
            photo,
            self.samples,
            further_pages=further_pages,
            format=format,
            quality=quality,
            depth=depth,
            history=history,
            is_denoised=self.denoise > 0.0,
        )

    def encode_damage_map(self) -> bytes:
        """The damage map as a grey PNG."""
        return encode_map(self.damage_map)


def restore_photo(
    photo: Photo, generator: TileGenerator, options: RestoreOptions | None = None, *, offset_px: int = 0
) -> Restoration:
    """Restore a photo, every page of it: the one function that the service, the archive tool and the evaluation call.

    `offset_px` moves the grid of tiles, to show that no seam is left. Raises InvalidOption if `damage` or `protect`
    does not have the photo's size, or goes with a photo of several pages, DenoiserMissing if the generator cannot
    denoise and should.
    """
    options = options or RestoreOptions()
    expect_denoiser(generator, options.denoise)
    options.expect_size(photo.height_px, photo.width_px)
    if photo.further_pages and (options.damage is not None or options.protect is not None):
        raise InvalidOption(f"a mask is for one page, but the photo has {len(photo.pages)}; send them one by one")
    with UNDER_WAY.one_more_photo():
        first, *further = pages = [_restore_page(page, generator, options, offset_px) for page in photo.pages]
    seconds: dict[str, float] = {}
    for stage, duration in (item for page in pages for item in page.seconds.items()):
        seconds[stage] = seconds.get(stage, 0.0) + duration
    return replace(first, seconds=seconds, suspected_from=_suspected_from(pages), further_pages=tuple(further))


def _suspected_from(pages: Sequence[Restoration]) -> float | None:
    if any(page.mask.any() for page in pages):
        return None
    return min((page.suspected_from for page in pages if page.suspected_from is not None), default=None)


def expect_denoiser(generator: TileGenerator, denoise: float) -> None:
    """Raises DenoiserMissing if it is asked for what it cannot do."""
    if denoise > 0.0 and not generator.has_denoiser:
        raise DenoiserMissing


def _restore_page(photo: Photo, generator: TileGenerator, options: RestoreOptions, offset_px: int) -> Restoration:
    seconds: dict[str, float] = {}
    repaired = _repair_page(photo, generator, options, offset_px, seconds)
    if options.denoise == 0.0:
        return repaired
    with _timed(seconds, "denoise"):
        samples = denoise_samples(photo, repaired.samples, generator, options, offset_px)
    return replace(repaired, samples=samples, denoise=options.denoise)


def denoise_samples(
    photo: Photo, samples: np.ndarray, generator: TileGenerator, options: RestoreOptions, offset_px: int = 0
) -> np.ndarray:
    """samples: (H, W, C) of the photo's kind; returns the same less the share of its noise that was asked for.

    What is grey stays grey, and what is protected as it was.
    """
    seen = photo.colours.see_deep(samples)
    is_grey = all((seen[rows] == seen[rows, :, :1]).all() for rows in bands_of(len(seen)))

    def shares() -> Iterator[tuple[int, np.ndarray]]:
        for top, band in TilePass(generator, offset_px=offset_px).corrections(seen):
            band *= np.float32(options.denoise)
            if is_grey:
                band[:] = luma_of(band)[:, :, None]
            if options.protect is not None:
                band[options.protect[top : top + len(band)]] = 0.0
            yield top, band

    return photo.with_corrections(samples, shares())


def _repair_page(
    photo: Photo, generator: TileGenerator, options: RestoreOptions, offset_px: int, seconds: dict[str, float]
) -> Restoration:
    """seconds: where to note how long each stage took."""
    one_pass = _pass_of(options, generator, offset_px)
    colour = photo.colour()
    with _timed(seconds, "detect"):
        tone = find_tone(colour)
        damage_map = one_pass.detect(tone.to_grey(colour) if tone else colour)
        give_back_freed_memory(damage_map.size)
    with _timed(seconds, "mask"):
        opacities = decide_opacities(damage_map, options, generator.required_evidence)
        mask = opacities > 0
        give_back_freed_memory(mask.size)
        is_damaged = bool(mask.any())
        suspected_from = None if is_damaged else find_suspected_from(damage_map, options, generator.required_evidence)
    if not is_damaged:
        return Restoration(photo.samples, damage_map, mask, seconds, suspected_from=suspected_from)
    with _timed(seconds, "fill"):
        seen = colour if options.mode == "resize" else photo.deep_colour()
        filled = one_pass.fill(seen, mask, decide_see_through(mask, options))
        if tone:
            tone.lay_on(filled, mask)
        give_back_freed_memory(mask.size)
    with _timed(seconds, "compose"):
        samples = photo.with_colour(filled, mask, opacities)
    return Restoration(samples, damage_map, mask, seconds)


def _pass_of(options: RestoreOptions, generator: TileGenerator, offset_px: int) -> Pass:
    if options.mode == "resize":
        return ResizePass(generator)
    native = TilePass(generator, offset_px=offset_px)
    # A coarse fill stands where the damage was: only who may look through a mask can see it there
    if options.mode == "tile" or "see_through" not in generator.conditions:
        return native
    return PyramidPass(native, lambda coarse: grade_copy(coarse, generator.required_evidence, options.sensitivity))


def decide_opacities(damage_map: np.ndarray, options: RestoreOptions, required_evidence: float) -> np.ndarray:
    """damage_map: (H, W) uint8; returns (H, W) uint8, how much of the repair each sample takes."""
    opacities = grade_damage(damage_map, required_evidence, options.sensitivity)
    if options.damage is not None:
        opacities[options.damage] = 255
    if options.protect is not None:
        opacities[options.protect] = 0
    return opacities


def find_suspected_from(damage_map: np.ndarray, options: RestoreOptions, required_evidence: float) -> float | None:
    """Of the sensitivities 0.1, 0.2 to 1, the least with which something would be repaired of what is not with the
    options'; None if nothing would be.

    Of damaged photos in which nothing is sure enough this tells a third, of clean ones one in fifty
    ([measured](../docs/decisions/0053-what-a-higher-sensitivity-adds.md)).
    """
    more = [step / 10 for step in range(1, 11) if step / 10 > options.sensitivity]

    def repairs(sensitivity: float) -> bool:
        asked = replace(options, sensitivity=sensitivity)
        return bool(decide_opacities(damage_map, asked, required_evidence).any())

    if not more or not repairs(more[-1]):
        return None
    return more[bisect_left(more[:-1], True, key=repairs)]


def decide_see_through(mask: np.ndarray, options: RestoreOptions) -> np.ndarray:
    """(H, W) bool: where the generator may look at the damaged samples that it fills.

    Not where the caller forced the repair: what the detector does not take for damage would come back as it was.
    """
    everywhere = np.broadcast_to(np.True_, mask.shape)  # a scan's would be 100 MB where most is held
    return everywhere if options.damage is None else ~options.damage


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started


@contextmanager
def _as_release_errors(release: Release) -> Iterator[None]:
    """What its networks cannot compute is the release's fault, what the device cannot is not. A config may hold
    anything that JSON can, such as a dilation of 1.5."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ReleaseInvalid(
            f"release {release.version}: its networks cannot be computed ({error}); publish it again"
        ) from error


class LoadSettings(TypedDict, total=False):
    """Where a release is loaded, and how it runs there. batch_size: 0 for the device's own; num_threads: of a CPU,
    0 for as many as torch has."""

    device: str
    precision: PrecisionChoice
    batch_size: int
    num_threads: int


@dataclass(frozen=True)
class Restorer:
    """A release that was verified, loaded onto a device and has passed its golden self-test."""

    release: Release
    generator: DeviceGenerator

    @classmethod
    def load(cls, release: Release, **settings: Unpack[LoadSettings]) -> Self:
        """Build, load, warm up, run the golden photo. In int8 that photo says how far what is quantised reaches.

        Raises ReleaseInvalid if the release cannot be loaded or fails its self-test, InvalidOption for a device,
        precision or batch size that cannot be had here.
        """
        device = choose_device(settings.get("device", "auto"))
        precision = choose_precision(device, settings.get("precision", "auto"))
        batch_size = settings.get("batch_size") or choose_batch_size(device)
        num_threads = settings.get("num_threads", 0)
        network, golden = load_generator(release), read_golden(release)
        with _as_release_errors(release):
            generator = DeviceGenerator(network, device, precision, batch_size=batch_size, num_threads=num_threads)
            if precision == "int8":
                generator.quantise(lambda: restore_photo(golden.damaged, generator))
            generator.warm_up(TILE_PX)
        check_golden(release, golden, generator)
        generator.give_back_memory()
        return cls(release, generator)

    @classmethod
    def load_newest(
        cls,
        store: Store,
        version: str | None = None,
        **settings: Unpack[LoadSettings],
    ) -> tuple[Self, dict[str, str]]:
        """The newest release that verifies, loads and passes its self-test, or that of this version; and why newer
        ones were refused. The store is looked at anew.

        Raises NoRelease with all the reasons if none does, StoreUnreachable if the store does not answer, what `load`
        raises for a release that was named, and InvalidOption as `load` does.
        """
        store.refresh()
        if version is not None:
            return cls.load(store.read(version), **settings), {}
        refused: dict[str, str] = {}
        for candidate in reversed(store.versions()):
            try:
                return cls.load(store.read(candidate), **settings), refused
            except ReleaseError as error:
                refused[candidate] = str(error)
        reasons = "; ".join(refused.values()) or "it is empty or missing; publish one, or name another store"
        raise NoRelease(f"the model store {store} holds no release that works: {reasons}")

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def precision(self) -> Precision:
        return self.generator.precision

    def restore(self, photo: Photo, options: RestoreOptions | None = None) -> Restoration:
        """`restore_photo` with this release."""
        return restore_photo(photo, self.generator, options)
