"""`python -m training`: train, take-part, calibrate, evaluate, publish, preview, gallery, run."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import torch
import typer

from restoration.device import choose_device
from restoration.errors import DataError, RestorationError
from restoration.stores import address_of
from training.jobs import (
    Data,
    calibrate_run,
    console,
    draw_preview,
    evaluate_runs,
    expect_held_out,
    expect_readable,
    make_gallery,
    publish,
    resolve_recipe,
    train,
)
from training.overlays import build_bank
from training.parts import PartName, take_part
from training.photos import load_photos
from training.pictures import expect_savable, save_sheet
from training.publishing import expect_writable, newest_release
from training.ranks import expect_alone, join_ranks
from training.recipes import RecipeName
from training.samples import NAMES, crop_sample
from training.trainer import RunSettings, recipe_record

STORE = str(Path(__file__).parent.parent / "model_store")
RUN = Path("runs/latest")
GALLERY = Path("docs/gallery.md")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a generator on a folder of photographs, measure it, and publish it for the service to load.",
)


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
RecipeOption = Annotated[
    RecipeName,
    typer.Option(
        help="detect-fill is ours; fine-tune, or fine-tune-gpu, goes on from a release (--start-from); denoise "
        "gives it a denoiser; pix2pix is the original notebook's."
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(help="Folder of a release, such as model_store/0003: start with its weights where they fit."),
]
Minutes = Annotated[
    float | None, typer.Option(help="Stop with a checkpoint after this many minutes; --resume goes on.", min=0)
]
StepsFactor = Annotated[float, typer.Option(help="Make every phase of the recipe this much longer or shorter.", min=0)]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the damage and the crops.", min=0, max=2**64 - 1)]
Precision = Annotated[Literal["bfloat16", "float32"], typer.Option(help="Arithmetic of the networks.")]
Workers = Annotated[
    int, typer.Option(help="Processes that make pairs ahead of need; 0 makes them on the device itself.", min=0)
]
Report = Annotated[Path | None, typer.Option(help="Folder for the evaluation's tables and sheets [RUN/report].")]
Weights = Annotated[
    Path | None, typer.Option(help="Folder with LPIPS's AlexNet weights; without it LPIPS is left out.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile our networks: worth its minutes in a long run on a GPU.")
]
PerceptualWeights = Annotated[
    Path | None, typer.Option(help="Folder with VGG16's weights, for a recipe with a perceptual loss.")
]
NumCases = Annotated[int, typer.Option(help="Cases of each family of damage.", min=1)]
Store = Annotated[
    str,
    typer.Option(help="The model store that the service loads from: a folder, or a URL such as s3://bucket/releases."),
]
Licence = Annotated[str, typer.Option(help="For the model card: which licences the training data have.")]
About = Annotated[str, typer.Option(help="For the model card: what the training data are.")]
Failures = Annotated[str, typer.Option(help="For the model card: what is known to fail.")]

Force = Annotated[
    str | None, typer.Option(help="Publish even if it is worse than the newest release; the reason, for the card.")
]

LICENCE = "Not stated. Whoever publishes a release says here which licences its training photographs have."
FAILURES = "Not stated. Look at the contact sheet in `report/`."


@app.command("train")
def train_command(
    photos: Photos,
    damaged: Damaged = None,
    overlays: Overlays = None,
    recipe: RecipeOption = "detect-fill",
    start_from: StartFrom = None,
    run: RunFolder = RUN,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    minutes: Minutes = None,
    steps_factor: StepsFactor = 1.0,
    device: Device = "auto",
    precision: Precision = "bfloat16",
    workers: Workers = 0,
    seed: Seed = 0,
    perceptual_weights: PerceptualWeights = None,
    compile_networks: Compile = False,
    dry_run: DryRun = False,
) -> None:
    """Train on PHOTOS, with damage made on the fly, or with the damaged pictures of --damaged.

    Checkpoints, TensorBoard curves and sample grids go to the run's folder. SIGTERM and --minutes stop with a
    checkpoint; --resume goes on exactly from there. Exit code 0 when the recipe is finished or stopped so, 2 for an
    error that can be mended.
    """
    resolved = resolve_recipe(recipe, photos, steps_factor, seed)
    data = Data(photos, damaged, overlays)
    with join_ranks(device) as (ranks, own_device):
        settings = RunSettings(
            folder=run,
            device=own_device,
            precision=getattr(torch, precision),
            num_workers=workers,
            max_seconds=None if minutes is None else minutes * 60,
            ranks=ranks,
            compiles=compile_networks,
            perceptual_weights=perceptual_weights,
        )
        if dry_run:
            shown = {"data": vars(data), "settings": vars(settings), "start_from": start_from}
            show({**shown, "recipe": recipe_record(resolved)})
            return
        train(resolved, data, settings, resume=resume, start_from=start_from)


@app.command("take-part")
def take_part_command(
    part: Annotated[PartName, typer.Argument(help="detector, verifier, filler or denoiser.")],
    donor: Annotated[Path, typer.Argument(help="Folder of the run that has trained it.")],
    into: Annotated[Path, typer.Option(help="Folder of the run to be made.")],
    run: RunFolder = RUN,
    dry_run: DryRun = False,
) -> None:
    """Make a run that is --run but for one part of its generator, which is another run's.

    What it makes can be calibrated, evaluated and published, but not trained on.
    """
    if dry_run:
        show({"part": part, "donor": donor, "run": run, "into": into})
        return
    take_part(part, donor, run, into)
    console.print(f"wrote {into}: {run} with the {part} of {donor}")


@app.command("calibrate")
def calibrate_command(photos: Photos, run: RunFolder = RUN, device: Device = "auto", dry_run: DryRun = False) -> None:
    """Choose how sure the detector must be, so that clean photographs stay clean.

    Chosen on photographs of PHOTOS that are neither trained on nor evaluated on, and kept with the run's checkpoint.
    With fewer than twenty of them it stays as it is.
    """
    if dry_run:
        show({"photos": photos, "run": run, "device": choose_device(device)})
        return
    calibrate_run(photos, run, choose_device(device))


@app.command("evaluate")
def evaluate_command(
    photos: Photos,
    overlays: Overlays = None,
    run: RunFolder = RUN,
    baseline: Annotated[Path | None, typer.Option(help="Folder of another run to compare with.")] = None,
    report: Report = None,
    lpips_weights: Weights = None,
    num_cases: NumCases = 12,
    processes: Annotated[
        int, typer.Option(help="Processes that share the cases and OMP_NUM_THREADS, or the CPU's cores.", min=1)
    ] = 1,
    largest_px: Annotated[
        int, typer.Option(help="Measure no size beyond this short side; a case at 3,000 px takes minutes on a CPU.")
    ] = 3000,
    device: Device = "auto",
    model_store: Store = STORE,
    dry_run: DryRun = False,
) -> None:
    """Measure a run on the photographs of PHOTOS that it never saw, with damage that it never saw.

    Beside it: doing nothing, classical inpainting, and the newest release. Writes evaluation.json, evaluation.md and
    contact_sheet.png. The sheet shows photographs that scikit-image ships, so
    that it may be passed on whatever PHOTOS holds.
    """
    report = report or run / "report"
    if dry_run:
        compared = {"run": run, "baseline": baseline, "num_cases": num_cases, "lpips_weights": lpips_weights}
        show(
            {
                "photos": photos,
                "overlays": overlays,
                **compared,
                "processes": processes,
                "largest_px": largest_px,
                "report": report,
                "device": choose_device(device),
            }
        )
        return
    data = Data(photos, None, overlays)
    evaluate_runs(
        data,
        run,
        baseline=baseline,
        report=report,
        lpips_weights=lpips_weights,
        num_cases=num_cases,
        device=choose_device(device),
        store=address_of(model_store),
        num_processes=processes,
        largest_px=largest_px,
    )


@app.command("publish")
def publish_command(
    run: RunFolder = RUN,
    report: Report = None,
    overlays: Overlays = None,
    model_store: Store = STORE,
    about: About = "Not stated.",
    licence: Licence = LICENCE,
    failures: Failures = FAILURES,
    force: Force = None,
    dry_run: DryRun = False,
) -> None:
    """Publish a run's averaged generator as the next release, with the report of `evaluate` and a model card.

    Refused if it is worse than the newest release on the report's cases, unless --force says why.
    """
    report = report or run / "report"
    if dry_run:
        show({"run": run, "report": report, "overlays": overlays, "model_store": model_store})
        return
    publish(
        run,
        report=report,
        overlays=overlays,
        store=address_of(model_store),
        about=about,
        licence=licence,
        failures=failures,
        force=force,
    )


@app.command("run")
def run_command(
    photos: Photos,
    overlays: Overlays = None,
    recipe: RecipeOption = "detect-fill",
    start_from: StartFrom = None,
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
    force: Force = None,
    dry_run: DryRun = False,
) -> None:
    """Train, calibrate, evaluate and publish in one, on your own folder of photographs.

    A few of them are held out, to be measured on. Exit code 0 when a release was published, 1 when SIGTERM stopped the
    training with a checkpoint (--resume goes on exactly from there), 2 for an error that can be mended.
    """
    expect_alone("run")
    resolved = resolve_recipe(recipe, photos, steps_factor, seed)
    expect_held_out(photos, resolved.held_out_share)
    data = Data(photos, None, overlays)
    settings = RunSettings(run, choose_device(device), getattr(torch, precision), workers)
    if dry_run:
        shown = {"data": vars(data), "settings": vars(settings), "start_from": start_from, "store": model_store}
        show({**shown, "recipe": recipe_record(resolved)})
        return
    store = address_of(model_store)
    expect_writable(store)
    expect_readable(photos, resolved.held_out_share)
    if not train(resolved, data, settings, resume=resume, start_from=start_from):
        raise typer.Exit(1)
    calibrate_run(photos, run, settings.device)
    report = run / "report"
    evaluate_runs(
        data,
        run,
        baseline=None,
        report=report,
        lpips_weights=lpips_weights,
        num_cases=num_cases,
        device=settings.device,
        store=store,
    )
    publish(
        run,
        report=report,
        overlays=overlays,
        store=store,
        about=about,
        licence=licence,
        failures=failures,
        force=force,
    )


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
    expect_savable(output)
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


@app.command("gallery")
def gallery_command(
    output: Annotated[
        Path, typer.Option(help="The page to write (Markdown); pictures go to images/gallery beside it.")
    ] = (GALLERY),
    model_store: Store = STORE,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Show what the newest release makes of photographs that may be shown to anyone, with damage drawn onto them."""
    if dry_run:
        show({"output": output, "model_store": model_store, "device": choose_device(device)})
        return
    if (newest := newest_release(address_of(model_store))) is None:
        raise DataError(f"{model_store} holds no release to show; publish one")
    make_gallery(newest, output, choose_device(device))


def show(settings: Mapping[str, object]) -> None:
    """The resolved settings as JSON on standard output."""
    print(json.dumps(settings, indent=2, default=str))


def main() -> None:
    """The command line, with domain errors and those of the system as one line and exit code 2."""
    try:
        app()
    except RestorationError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{error.filename or 'file'}: {error.strerror or error}")


def _stop(reason: str) -> NoReturn:
    # no markup: a path may hold brackets
    console.print(f"error: {reason}", style="red", soft_wrap=True, markup=False, highlight=False)
    sys.exit(2)
