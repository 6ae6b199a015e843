"""`python -m training`: train, evaluate, publish, preview, run."""

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console

from restoration.device import choose_device
from restoration.errors import DataError, InvalidOption, RestorationError
from restoration.tensors import to_samples
from training.cases import CASE_FAMILIES, Case, damage_config, families_of, make_case, make_cases
from training.damage import make_pairs
from training.evaluation import (
    Method,
    do_nothing,
    evaluate,
    inpaint_telea,
    method_of,
    method_told,
    place,
    save_contact_sheet,
)
from training.metrics import LPIPS
from training.overlays import OverlayBank, build_bank
from training.pairs import DamagedOnTheFly, PairSource, load_paired_folders
from training.photos import CropConfig, load_photos, sample_crops
from training.pictures import draw_sheet, save_sheet
from training.publishing import publish_run
from training.recipes import RECIPES, Recipe, scale_steps
from training.samples import NAMES, crop_sample
from training.seams import measure_seams
from training.splits import list_images, select_split
from training.trainer import RunSettings, Trainer, generator_from_checkpoint, recipe_record

STORE = Path(__file__).parent.parent / "model_store"
RUN = Path("runs/latest")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a generator on a folder of photographs, measure it, and publish it for the service to load.",
)
console = Console(stderr=True)

RecipeName = Literal["detect-fill", "pix2pix"]

Photos = Annotated[Path, typer.Argument(help="Folder of clean photographs (JPEG, PNG, WebP, TIFF; subfolders too).")]
Overlays = Annotated[
    Path | None,
    typer.Option(help="Folder of greyscale damage overlays, white is damage. Damage is drawn without it, too."),
]
Damaged = Annotated[
    Path | None,
    typer.Option(help="Folder of damaged pictures with the same names as those in PHOTOS, instead of drawn damage."),
]
RunFolder = Annotated[Path, typer.Option("--run", help="Folder of the run: checkpoint, curves, sample grids.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the resolved settings and stop.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RecipeOption = Annotated[RecipeName, typer.Option(help="detect-fill is ours; pix2pix is the original notebook's.")]
Minutes = Annotated[
    float | None, typer.Option(help="Stop with a checkpoint after this many minutes; --resume goes on.", min=0)
]
StepsFactor = Annotated[float, typer.Option(help="Make every phase of the recipe this much longer or shorter.", min=0)]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the damage and the crops.", min=0)]
Precision = Annotated[Literal["bfloat16", "float32"], typer.Option(help="Arithmetic of the networks.")]
Workers = Annotated[
    int, typer.Option(help="Processes that make pairs ahead of need; 0 makes them on the device itself.", min=0)
]
Report = Annotated[Path | None, typer.Option(help="Folder for the evaluation's tables and sheets [RUN/report].")]
Weights = Annotated[
    Path | None, typer.Option(help="Folder with LPIPS's AlexNet weights; without it LPIPS is left out.")
]
NumCases = Annotated[int, typer.Option(help="Cases of each family of damage.", min=1)]
Store = Annotated[Path, typer.Option(help="The model store that the service loads from.")]
Licence = Annotated[str, typer.Option(help="For the model card: which licences the training data have.")]
About = Annotated[str, typer.Option(help="For the model card: what the training data are.")]
Failures = Annotated[str, typer.Option(help="For the model card: what is known to fail.")]

LICENCE = "Not stated. Whoever publishes a release says here which licences its training photographs have."
FAILURES = "Not stated. Look at the contact sheet in `report/`."


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
                digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
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
        bank = build_bank("train", overlay_folder=self.overlays, families=recipe.damage.families)
        return DamagedOnTheFly(photos, bank.to(device), recipe.damage, recipe.crops, recipe.seed)


def resolve_recipe(name: RecipeName, photos: Path, steps_factor: float, seed: int) -> Recipe:
    if not photos.is_dir():
        raise DataError(f"{photos} is not a folder; name a folder of clean photographs")
    recipe = replace(RECIPES[name](len(list_images(photos))), seed=seed)
    return recipe if steps_factor == 1.0 else scale_steps(recipe, steps_factor)


@app.command("train")
def train_command(
    photos: Photos,
    damaged: Damaged = None,
    overlays: Overlays = None,
    recipe: RecipeOption = "detect-fill",
    run: RunFolder = RUN,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    minutes: Minutes = None,
    steps_factor: StepsFactor = 1.0,
    device: Device = "auto",
    precision: Precision = "bfloat16",
    workers: Workers = 0,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Train on PHOTOS, with damage made on the fly, or with the damaged pictures of --damaged.

    Checkpoints, TensorBoard curves and sample grids go to the run's folder. SIGTERM and --minutes stop with a
    checkpoint; --resume goes on exactly from there. Exit code 0 when the recipe is finished or stopped so, 2 for an
    error that can be mended.
    """
    resolved = resolve_recipe(recipe, photos, steps_factor, seed)
    data = Data(photos, damaged, overlays)
    settings = RunSettings(
        folder=run,
        device=choose_device(device),
        precision=getattr(torch, precision),
        num_workers=workers,
        max_seconds=None if minutes is None else minutes * 60,
    )
    if dry_run:
        show({"data": vars(data), "settings": vars(settings), "recipe": recipe_record(resolved)})
        return
    train(resolved, data, settings, resume=resume)


def train(recipe: Recipe, data: Data, settings: RunSettings, *, resume: bool) -> bool:
    """Returns whether the recipe was finished."""
    has_checkpoint = (settings.folder / "checkpoint.pt").exists()
    if has_checkpoint and not resume:
        raise InvalidOption(f"{settings.folder} holds a checkpoint; go on with --resume, or name another --run")
    # what worker processes use must not lie on a GPU: they are forked, and could not reach it
    makes_pairs = torch.device("cpu") if settings.num_workers else settings.device
    trainer = Trainer(recipe, data.source(recipe, makes_pairs), settings)
    if resume:
        trainer.resume()
    facts = {"device": describe(settings.device), "data_fingerprint": data.fingerprint()}
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    finished = trainer.train()
    console.print(f"{'finished' if finished else 'stopped'} at step {trainer.step:,} of {recipe.num_steps:,}")
    return finished


def expect_held_out(photos: Path, held_out_share: float) -> None:
    """Raises DataError before hours of training if there would be nothing to measure them on."""
    paths = list_images(photos)
    if not select_split(paths, photos, "evaluation", held_out_share):
        raise DataError(
            f"{photos} holds {len(paths)} photographs, and none of them is among the {held_out_share:.0%} that are "
            "held out, by name, for the evaluation; add photographs"
        )


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"


@app.command("evaluate")
def evaluate_command(
    photos: Photos,
    overlays: Overlays = None,
    run: RunFolder = RUN,
    baseline: Annotated[Path | None, typer.Option(help="Folder of another run to compare with.")] = None,
    report: Report = None,
    lpips_weights: Weights = None,
    num_cases: NumCases = 12,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Measure a run on the photographs of PHOTOS that it never saw, with damage that it never saw.

    Writes evaluation.json, evaluation.md and contact_sheet.png. The sheet shows photographs that scikit-image ships, so
    that it may be passed on whatever PHOTOS holds.
    """
    report = report or run / "report"
    if dry_run:
        compared = {"run": run, "baseline": baseline, "num_cases": num_cases, "lpips_weights": lpips_weights}
        show({"photos": photos, "overlays": overlays, **compared, "report": report, "device": choose_device(device)})
        return
    evaluate_runs(Data(photos, None, overlays), run, baseline, report, lpips_weights, num_cases, choose_device(device))


def evaluate_runs(
    data: Data,
    run: Path,
    baseline: Path | None,
    report: Path,
    lpips_weights: Path | None,
    num_cases: int,
    device: torch.device,
) -> None:
    lpips = LPIPS(lpips_weights) if lpips_weights else None
    methods: dict[str, Method] = {"nothing": do_nothing, "telea, true mask": inpaint_telea}
    about: dict[str, object] = {}
    held_out_share = 0.0
    for folder in filter(None, (baseline, run)):
        generator, state = generator_from_checkpoint(folder)
        recipe_name = state["recipe"]["name"]
        name = recipe_name if recipe_name not in methods else f"{recipe_name}, {folder.name}"
        methods[name] = method_of(generator, device)
        if recipe_name == "detect-fill":
            methods[f"{name}, true mask"] = method_told(generator, device)
        about[f"{name}, training"] = f"{state['trained_seconds'] / 60:.0f} minutes, {state['step']:,} steps"
        held_out_share = state["recipe"]["held_out_share"]
    photos = load_photos(data.photos, "evaluation", held_out_share=held_out_share)
    bank = build_bank("evaluation", overlay_folder=data.overlays)
    about |= {"held-out photographs": len(photos), "cases of each family": num_cases}
    cases = make_cases(photos.photos, photos.names, bank, num_per_family=num_cases, seed=1)
    evaluation = evaluate(cases, methods, lpips=lpips, about=about)
    seams = measure_seams(photos.photos, bank, place(generator, device))
    replace(evaluation, seams=seams).save(report)
    save_contact_sheet(sample_cases(data.overlays), methods, report / "contact_sheet.png")
    console.print(evaluation.to_markdown(), soft_wrap=True, markup=False, highlight=False)


def sample_cases(overlays: Path | None, side_px: int = 256) -> list[Case]:
    """One case a family on photographs that may be shown, with held-out damage."""
    bank = build_bank("evaluation", overlay_folder=overlays, num_per_family=40)
    damaged = [family for family in CASE_FAMILIES if family != "clean"]
    return [
        make_case(crop_sample(NAMES[index % len(NAMES)], side_px), NAMES[index % len(NAMES)], family, bank, seed=index)
        for index, family in enumerate(damaged)
        if family in families_of(bank)
    ]


@app.command("publish")
def publish_command(
    run: RunFolder = RUN,
    report: Report = None,
    overlays: Overlays = None,
    model_store: Store = STORE,
    about: About = "Not stated.",
    licence: Licence = LICENCE,
    failures: Failures = FAILURES,
    dry_run: DryRun = False,
) -> None:
    """Publish a run's averaged generator as the next release, with the report of `evaluate` and a model card."""
    report = report or run / "report"
    if dry_run:
        show({"run": run, "report": report, "overlays": overlays, "model_store": model_store})
        return
    publish(run, report, overlays, model_store, about, licence, failures)


def publish(
    run: Path, report: Path, overlays: Path | None, store: Path, about: str, licence: str, failures: str
) -> None:
    golden = next(case for case in sample_cases(overlays) if case.family == "mixtures")
    release = publish_run(run, store, golden=golden, report=report, data=about, licence=licence, failures=failures)
    console.print(f"published release {release.version} in {store}")


@app.command("run")
def run_command(
    photos: Photos,
    overlays: Overlays = None,
    recipe: RecipeOption = "detect-fill",
    run: RunFolder = RUN,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    steps_factor: StepsFactor = 1.0,
    device: Device = "auto",
    precision: Precision = "bfloat16",
    workers: Workers = 0,
    seed: Seed = 0,
    lpips_weights: Weights = None,
    num_cases: NumCases = 12,
    model_store: Store = STORE,
    about: About = "Photographs of whoever ran this training job.",
    licence: Licence = LICENCE,
    failures: Failures = FAILURES,
    dry_run: DryRun = False,
) -> None:
    """Train, evaluate and publish in one, on your own folder of photographs.

    A few of them are held out, to be measured on. Exit code 0 when a release was published, 1 when SIGTERM stopped the
    training with a checkpoint (--resume goes on exactly from there), 2 for an error that can be mended.
    """
    resolved = resolve_recipe(recipe, photos, steps_factor, seed)
    expect_held_out(photos, resolved.held_out_share)
    data = Data(photos, None, overlays)
    settings = RunSettings(run, choose_device(device), getattr(torch, precision), workers)
    if dry_run:
        show({"data": vars(data), "settings": vars(settings), "recipe": recipe_record(resolved), "store": model_store})
        return
    if not train(resolved, data, settings, resume=resume):
        raise typer.Exit(1)
    report = run / "report"
    evaluate_runs(data, run, None, report, lpips_weights, num_cases, settings.device)
    publish(run, report, overlays, model_store, about, licence, failures)


@app.command("preview")
def preview_command(
    photos: Annotated[
        Path | None, typer.Argument(help="Folder of clean photographs; scikit-image's samples without one.")
    ] = None,
    overlays: Overlays = None,
    output: Annotated[Path, typer.Option(help="The contact sheet to write (PNG).")] = Path("damage.png"),
    columns: Annotated[int, typer.Option(help="Samples of each family.", min=1)] = 8,
    crop_px: Annotated[int, typer.Option(help="Side of each sample.", min=32)] = 192,
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Draw a contact sheet of the damage: a row for each family, one for mixtures, and the mixtures' true masks."""
    if dry_run:
        show({"photos": photos, "overlays": overlays, "output": output, "columns": columns, "crop_px": crop_px})
        return
    pictures = (
        load_photos(photos, "train", held_out_share=0.05, most=200).photos
        if photos is not None
        else [crop_sample(name, 384) for name in NAMES]
    )
    bank = build_bank("train", overlay_folder=overlays, num_per_family=40, seed=seed)
    save_sheet(draw_preview(pictures, bank, columns, crop_px, seed), output)
    console.print(f"wrote {output}")


def draw_preview(
    pictures: Sequence[np.ndarray], bank: OverlayBank, columns: int, crop_px: int, seed: int
) -> Image.Image:
    rows: list[list[np.ndarray]] = []
    rng = torch.Generator().manual_seed(seed)
    rows_of = [family for family in families_of(bank) if family != "clean"]
    for row, family in enumerate(rows_of):
        crops = sample_crops(pictures, columns, crop_px, CropConfig(), np.random.default_rng([seed, row]))
        pairs = make_pairs(crops, bank, damage_config(family), rng)
        rows.append([to_samples(picture) for picture in pairs.damaged])
    rows.append([to_samples(mask.expand(3, -1, -1)) for mask in pairs.mask])
    return draw_sheet(rows, row_labels=[*rows_of, "true masks"])


def show(settings: Mapping[str, object]) -> None:
    """The resolved settings as JSON on standard output."""
    print(json.dumps(settings, indent=2, default=str))


def main() -> None:
    """The command line, with domain errors as one line and exit code 2."""
    try:
        app()
    except RestorationError as error:
        # no markup: a path may hold brackets
        console.print(f"error: {error}", style="red", soft_wrap=True, markup=False, highlight=False)
        sys.exit(2)
