"""The jobs behind the commands: data and recipe resolved, then train, evaluate, publish, preview."""

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from restoration.errors import CheckpointError, DataError, InvalidOption
from restoration.generator import DetectFill, DetectFillConfig
from restoration.release import Release, load_generator, read_release
from restoration.stores import StoreAddress
from restoration.tensors import to_samples
from training.calibration import MIN_PHOTOS, UNCHANGED_SHARE, calibrate, calibrated_settings
from training.cases import (
    CASE_FAMILIES,
    SIZES,
    Case,
    Size,
    damage_config,
    make_at_size,
    make_case,
    make_cases,
    make_heavy,
)
from training.checkpoint import load_checkpoint, save_checkpoint
from training.damage import make_pairs
from training.denoising import make_noisy_cases, measure_denoising
from training.drawing import FAMILIES, INNOCENT
from training.evaluation import (
    Method,
    do_nothing,
    evaluate,
    inpaint_navier_stokes,
    inpaint_outliers,
    inpaint_telea,
    method_of,
    method_told,
    place,
    save_contact_sheet,
)
from training.gallery import show_photos, write_gallery
from training.metrics import LPIPS
from training.overlays import OverlayBank, build_bank
from training.pairs import DamagedOnDevice, DamagedOnTheFly, PairSource, load_paired_folders
from training.parts import part_of
from training.photos import (
    LEAST_MEASURED_PX,
    CropConfig,
    PhotoSet,
    ResidentPhotos,
    is_measurable,
    leave_out_small,
    load_largest_photos,
    load_photos,
    read_photo,
    sample_crops,
)
from training.pictures import draw_sheet
from training.publishing import (
    NEWEST_MEASURED,
    RUN_MEASURED,
    WEIGHTS_MEASURED,
    identity_of,
    newest_release,
    publish_run,
    read_facts,
    write_facts,
)
from training.recipes import RECIPES, Recipe, RecipeName, scale_steps
from training.samples import NAMES, crop_sample
from training.seams import measure_seams
from training.splits import HELD_OUT, bytes_of, list_images, select_split
from training.trainer import RunSettings, Trainer, generator_from_checkpoint, weights_digest

console = Console(stderr=True)
GOES_ON = ("fine-tune", "fine-tune-gpu", "denoise")
"""Recipes that need a release to start from."""
DRAWN_FOR_EACH_SHOWN = 4
LEAST_SHOWN = 5e-4
"""Share of a sample's pixels that must be visibly damaged for it to be shown on a contact sheet of damage."""
SCANS_OVERLAYS = 4
"""Of each family, for scans: drawn so large, many would take minutes. Files of overlays are too small for them."""
NOTHING = "nothing"
"""What a run that did not go on from a release was started from."""
CASES_TO_CALIBRATE, OVERLAYS_TO_CALIBRATE, CALIBRATION_SEED = 8, 20, 9
"""Of each family; the evaluation's cases have another seed, other photographs and other overlays."""


@dataclass(frozen=True)
class Data:
    """Where a run's pairs come from."""

    photos: Path
    damaged: Path | None
    overlays: Path | None

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of every file that the run may read."""
        digest = hashlib.sha256()
        for folder in filter(None, (self.photos, self.damaged, self.overlays)):
            for path in list_images(folder):
                digest.update(bytes_of(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n"))
        return digest.hexdigest()

    def source(self, recipe: Recipe, device: torch.device) -> PairSource:
        if self.damaged is not None:
            return load_paired_folders(
                self.damaged,
                self.photos,
                "train",
                held_out_share=recipe.held_out_share,
                short_side_px=recipe.short_side_px,
                crops=recipe.crops,
                seed=recipe.seed,
            )
        photos = load_photos(
            self.photos, "train", held_out_share=recipe.held_out_share, short_side_px=recipe.short_side_px
        )
        bank = OverlayBank({})
        if any(phase.noise is None for phase in recipe.phases):
            bank = build_bank("train", overlay_folder=self.overlays, families=(*recipe.damage.families, INNOCENT))
        how = (bank.to(device), recipe.damage, recipe.crops, recipe.seed)
        if device.type == "cuda" and not recipe.crops.is_whole:
            return DamagedOnDevice(ResidentPhotos.of(photos.photos, device), *how)
        return DamagedOnTheFly(photos, *how)


def resolve_recipe(name: RecipeName, photos: Path, steps_factor: float, seed: int) -> Recipe:
    if not photos.is_dir():
        raise DataError(f"{photos} is not a folder; name a folder of clean photographs")
    recipe = replace(RECIPES[name](len(list_images(photos))), seed=seed)
    return recipe if steps_factor == 1.0 else scale_steps(recipe, steps_factor)


def train(recipe: Recipe, data: Data, settings: RunSettings, *, resume: bool, start_from: Path | None = None) -> bool:
    """start_from: the folder of a release whose weights a new run starts with. Returns whether it was finished."""
    has_checkpoint = (settings.folder / "checkpoint.pt").exists()
    if has_checkpoint and not resume:
        raise InvalidOption(f"{settings.folder} holds a checkpoint; go on with --resume, or name another --run")
    if recipe.name in GOES_ON and start_from is None and not resume:
        raise InvalidOption(f"the recipe {recipe.name} goes on from a release; name one with --start-from")
    release = None if start_from is None else read_release(start_from.resolve().parent, start_from.resolve().name)
    if resume:
        recipe = with_parts_of(recipe, load_checkpoint(settings.folder)["recipe"]["generator"])
    elif release is not None:
        recipe = with_parts_of(recipe, release.manifest.config)
    # what worker processes use must not lie on a GPU: they are forked, and could not reach it
    makes_pairs = torch.device("cpu") if settings.num_workers else settings.device
    trainer = Trainer(recipe, data.source(recipe, makes_pairs), settings)
    facts = {
        "device": describe(settings.device),
        "data_fingerprint": data.fingerprint(),
        "precision": str(settings.precision).removeprefix("torch."),
        "started_from": NOTHING if release is None else identity_of(release),
    }
    if resume:
        trainer.resume()
        before = read_facts(settings.folder)
        if release is None:  # nobody needs to say it again
            facts["started_from"] = before.get("started_from", NOTHING)
        expect_same_run(settings.folder, before, facts)
    elif release is not None:
        num_taken, num_all = trainer.take_weights(load_generator(release)), len(trainer.generator.state_dict())
        console.print(f"took {num_taken} of {num_all} weights from release {release.version}")
    if settings.ranks.is_first:
        write_facts(settings.folder, facts)
    finished = trainer.train()
    console.print(f"{'finished' if finished else 'stopped'} at step {trainer.step:,} of {recipe.num_steps:,}")
    return finished


def with_parts_of(recipe: Recipe, config: Mapping[str, Any]) -> Recipe:
    """config: of the generator that the run goes on from. The parts of it that no phase trains stay as they are, and so
    must their settings."""
    if not isinstance(recipe.generator, DetectFillConfig):
        return recipe
    trained = {phase.trains for phase in recipe.phases}
    kept = {
        setting.name: _as_tuple(config.get(setting.name, setting.default))
        for setting in fields(DetectFillConfig)
        if part_of(setting.name) not in trained
    }
    return replace(recipe, generator=DetectFillConfig(**{**vars(recipe.generator), **kept}))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def expect_same_run(run: Path, before: Mapping[str, str], facts: Mapping[str, str]) -> None:
    """A run that goes on with other data or arithmetic is another run. Raises CheckpointError."""
    titles = {"data_fingerprint": "data", "precision": "precision", "started_from": "starting weights"}
    for name, title in titles.items():
        if before.get(name, facts[name]) != facts[name]:
            raise CheckpointError(
                f"{run} was started with other {title}; start a new folder, or give the same options as it was "
                "started with"
            )


def expect_held_out(photos: Path, held_out_share: float) -> None:
    """Raises DataError before hours of training if there would be nothing to measure them on."""
    paths = list_images(photos)
    if not any(map(is_measurable, select_split(paths, photos, "evaluation", held_out_share))):
        raise DataError(
            f"{photos} holds {len(paths)} photographs, and none of them is among the {held_out_share:.0%} that are "
            f"held out, by name, for the evaluation, and has a short side of at least {LEAST_MEASURED_PX} px; add "
            "photographs"
        )


def expect_readable(photos: Path, held_out_share: float) -> None:
    """Raises DataError before hours of training, not after them, for a held-out photograph that cannot be used."""
    paths = list_images(photos)
    for split in HELD_OUT:
        for path in select_split(paths, photos, split, held_out_share):
            read_photo(path)


def calibrate_run(photos: Path, run: Path, device: torch.device) -> None:
    """Choose the detector's scale and shift on held-out photographs; the run's checkpoint keeps them, also if it trains
    on."""
    generator, state = generator_from_checkpoint(run)
    if not isinstance(generator, DetectFill):
        console.print(f"{run} has no detector to calibrate")
        return
    recipe = state["recipe"]
    paths = leave_out_small(select_split(list_images(photos), photos, "validation", recipe["held_out_share"]))
    if len(paths) < MIN_PHOTOS:
        console.print(
            f"{photos} holds {len(paths)} photographs to calibrate on, fewer than {MIN_PHOTOS}: the detector's scale "
            f"and shift stay {generator.config.detector_scale} and {generator.config.detector_shift}, the verifier's "
            f"{generator.config.verifier_scale} and {generator.config.verifier_shift}"
        )
        return
    pictures = [read_photo(path, recipe["short_side_px"]) for path in paths]
    bank = build_bank("train", families=FAMILIES, num_per_family=OVERLAYS_TO_CALIBRATE)
    cases = make_cases(
        pictures, [path.name for path in paths], bank, num_per_family=CASES_TO_CALIBRATE, seed=CALIBRATION_SEED
    )
    damaged = (case for case in cases if case.family != "clean")
    found = calibrate(generator, pictures, damaged, device, unchanged_share=UNCHANGED_SHARE)
    calibration = calibrated_settings(found.scale, found.shift, found.suspect_shift)
    save_checkpoint(run, {**state, "calibration": calibration})
    console.print(
        f"calibrated on {len(paths)} photographs: with a scale of {found.scale} and a shift of {found.shift}, "
        f"{found.unchanged_share:.1%} of their prints stay unchanged ({UNCHANGED_SHARE:.1%} were asked for), "
        f"{found.kept_share:.2%} of what lies away from damage in damaged ones is kept, and these gain some "
        f"{found.gain_db:.1f} dB"
    )


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"


def evaluate_runs(
    data: Data,
    run: Path,
    *,
    baseline: Path | None,
    report: Path,
    lpips_weights: Path | None,
    num_cases: int,
    device: torch.device,
    store: StoreAddress,
    num_processes: int = 1,
    largest_px: int = 3000,
) -> None:
    """store: the newest release in it is measured on the same cases, for `publish` to compare with."""
    lpips = LPIPS(lpips_weights) if lpips_weights else None
    methods: dict[str, Method] = {
        "nothing": do_nothing,
        "telea, true mask": inpaint_telea,
        "navier-stokes, true mask": inpaint_navier_stokes,
        "median and telea": inpaint_outliers,
    }
    about: dict[str, object] = {}
    if (newest := newest_release(store)) is not None:
        methods[f"release {newest.version}"] = method_of(load_generator(newest), device)
        about[NEWEST_MEASURED] = identity_of(newest)
    held_out_share = 0.0
    for folder in filter(None, (baseline, run)):
        generator, state = generator_from_checkpoint(folder)
        recipe_name = state["recipe"]["name"]
        name = recipe_name if recipe_name not in methods else f"{recipe_name}, {folder.name}"
        methods[name] = method_of(generator, device)
        if recipe_name != "pix2pix":
            methods[f"{name}, true mask"] = method_told(generator, device)
        about[f"{name}, training"] = f"{state['trained_seconds'] / 60:.0f} minutes, {state['step']:,} steps"
        held_out_share = state["recipe"]["held_out_share"]
        about |= {RUN_MEASURED: name, WEIGHTS_MEASURED: weights_digest(generator)}  # the run itself comes last
    photos = load_photos(data.photos, "evaluation", held_out_share=held_out_share)
    bank = build_bank("evaluation", overlay_folder=data.overlays)
    about |= {"held-out photographs": len(photos), "cases of each family": num_cases}
    sizes = [size for size in SIZES if size.short_side_px <= largest_px]
    num_scans = max((size.num_cases(num_cases) for size in sizes if size.is_scan), default=0)
    largest = load_largest_photos(data.photos, "evaluation", held_out_share=held_out_share, most=num_scans)
    if num_scans:
        sides_px = ", ".join(str(min(photo.shape[:2])) for photo in largest.photos)
        about["photographs shown as scans"] = f"the largest, of a short side of {sides_px} px"
    chosen = (photos.photos, photos.names, bank)
    cases = chain(
        make_cases(*chosen, num_per_family=num_cases, seed=1),
        make_heavy(*chosen, num=num_cases, seed=1),
        *(_cases_at(size, photos, largest, bank, num_cases) for size in sizes),
    )
    evaluation = evaluate(cases, methods, lpips=lpips, about=about, num_processes=num_processes)
    placed = place(generator, device)
    evaluation = replace(evaluation, seams=measure_seams(photos.photos, bank, placed))
    if generator.has_denoiser:
        noisy = make_noisy_cases(photos.photos, photos.names, num_per_kind=num_cases, seed=1)
        evaluation = replace(evaluation, denoising=measure_denoising(noisy, placed, lpips))
    evaluation.save(report)
    save_contact_sheet(sample_cases(data.overlays), methods, report / "contact_sheet.png")
    console.print(evaluation.to_markdown(), soft_wrap=True, markup=False, highlight=False)


def _cases_at(size: Size, photos: PhotoSet, largest: PhotoSet, bank: OverlayBank, num_cases: int) -> Iterator[Case]:
    """Nothing where `num_cases` is too small for the size to have a case."""
    num = size.num_cases(num_cases)
    if num and size.is_scan:
        photos = largest
        bank = build_bank(
            "evaluation", families=FAMILIES, side_px=size.short_side_px // 2, num_per_family=SCANS_OVERLAYS
        )
    yield from make_at_size(photos.photos, photos.names, bank, size, num=num, seed=1)


def sample_cases(overlays: Path | None, side_px: int = 256) -> list[Case]:
    """One case a family on photographs that may be shown, with held-out damage."""
    bank = build_bank("evaluation", overlay_folder=overlays, num_per_family=40)
    damaged = [family for family in CASE_FAMILIES if family != "clean"]
    return [
        make_case(crop_sample(NAMES[index % len(NAMES)], side_px), NAMES[index % len(NAMES)], family, bank, seed=index)
        for index, family in enumerate(damaged)
    ]


def publish(
    run: Path,
    *,
    report: Path,
    overlays: Path | None,
    store: StoreAddress,
    about: str,
    licence: str,
    failures: str,
    force: str | None,
) -> None:
    golden = next(case for case in sample_cases(overlays) if case.family == "mixtures")
    said = {"data": about, "licence": licence, "failures": failures}
    release = publish_run(run, store, golden=golden, report=report, **said, force=force)
    console.print(f"published release {release.version} in {store}")


def make_gallery(release: Release, page: Path, device: torch.device) -> None:
    bank = build_bank("evaluation", num_per_family=40)
    exhibits = show_photos(bank, place(load_generator(release), device))
    write_gallery(exhibits, page, release.version)
    num_failed = sum(bool(exhibit.failures()) for exhibit in exhibits)
    console.print(
        f"wrote {page}: {len(exhibits)} photographs by release {release.version}, {num_failed} with a failure"
    )


def draw_preview(
    pictures: Sequence[np.ndarray], bank: OverlayBank, columns: int, crop_px: int, seed: int
) -> Image.Image:
    """Damage as the trainer sees it, but for the samples in which none shows: there they are needed, here not."""
    rows: list[list[np.ndarray]] = []
    rng = torch.Generator().manual_seed(seed)
    rows_of = [family for family in CASE_FAMILIES if family != "clean"]
    for row, family in enumerate(rows_of):
        num_drawn = columns * DRAWN_FOR_EACH_SHOWN
        crops = sample_crops(pictures, num_drawn, crop_px, CropConfig(), np.random.default_rng([seed, row]))
        pairs = make_pairs(crops, bank, damage_config(family), rng)
        shows = pairs.mask.mean(dim=(1, 2, 3)) > LEAST_SHOWN
        shown = shows.float().argsort(descending=True, stable=True)[:columns]
        rows.append([to_samples(picture) for picture in pairs.damaged[shown]])
    rows.append([to_samples(mask.expand(3, -1, -1)) for mask in pairs.mask[shown]])
    return draw_sheet(rows, row_labels=[*rows_of, "true masks"])
