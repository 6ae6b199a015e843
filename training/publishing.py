"""From a run's checkpoint and its evaluation to a release with its model card."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from torch import nn

from restoration.errors import DataError, ReleaseInvalid, ReleaseWorse, StoreUnreachable
from restoration.generator import DetectFill, Generator
from restoration.publishing import LAST_NUMBER, publish_release
from restoration.release import Release, load_generator
from restoration.remote_store import RemoteStore
from restoration.stores import Store, StoreAddress, open_store
from training.cases import Case, png_of
from training.evaluation import mean_over_damaged, or_nan
from training.trainer import generator_from_checkpoint, weights_digest

WEIGHTS_MEASURED = "SHA-256 of the weights"
"""What a report says of the weights that it measured."""
NEWEST_MEASURED = "newest release before"
"""What a report says of the release that it measured on the same cases."""
RUN_MEASURED = "the run's name in the tables"
COPIES = Path("~/.cache/photo-restoration/training")
"""Where copies of releases are kept that lie in a store elsewhere; not the service's, which keeps its own number."""
NUM_COPIES = 2
FACTS = "run.json"
MEASURE_AGAIN = "run `python -m training evaluate` again"


@dataclass(frozen=True)
class Requirement:
    """A score that a release must not lose more of than this against the newest one before it."""

    measure: str
    title: str
    most_lost: float
    higher_is_better: bool = True
    family: str | None = None
    """None: the mean over the damaged families."""


REQUIREMENTS = (
    Requirement("psnr", "PSNR in dB", 0.1),
    Requirement("lpips", "LPIPS", 0.002, higher_is_better=False),
    Requirement("exact_outside", "share of unaltered pixels kept exactly", 0.0005),
    Requirement("untouched", "share of clean photos left unchanged", 0.02, family="clean"),
)

REMOVES_NOISE = "noise, grain and compression artifacts go\nif that is asked for (`denoise`), and stay otherwise;"
KEEPS_NOISE = "it does not remove noise or grain;"
USES_PERCEPTUAL_LOSS = """
The filler's loss was measured with the features of VGG16 (torchvision's weights, BSD 3-Clause), weighed as LPIPS weighs
them (BSD 2-Clause). Neither's weights are in the release.
"""
PARTS_TAKEN = "parts taken from other runs"
"""What a run's facts say of them."""

CARD = """# Model card: release of {created:%Y-%m-%d}

| | |
|---|---|
| architecture | `{architecture}`, {num_parameters:.1f} M parameters ({networks}), fp16 |
| recipe | `{recipe_name}`, {steps:,} steps, {minutes:.0f} minutes of training on {device}{started_from}{parts} |
| training data | {data} |
| code revision | `{code_revision}` |
{forced}
## What it is for

Finding and filling structural damage (strokes, scratches, hairlines, dust, fibres, creases, stains, holes) in scanned
photographs. It leaves everything that it does not take for damage as it is; {noise}
it does not correct colours, does not sharpen and does not enlarge.

## Data and licences

{licence}
{perceptual}
## Scores

On held-out photographs with held-out damage; `report/evaluation.md` has every family, `report/evaluation.json` the
figures.

{summary}

## Known failures

{failures}

## Train your own

    .venv/bin/python -m training run FOLDER_OF_YOUR_PHOTOGRAPHS

trains, evaluates and publishes a release from your own photographs, with damage drawn onto them.
"""


def publish_run(
    run: Path,
    store: StoreAddress,
    *,
    golden: Case,
    report: Path,
    data: str,
    licence: str,
    failures: str,
    force: str | None = None,
) -> Release:
    """Publish the averaged generator of a run.

    report: the folder that `evaluate` wrote; force: why the release is published even if it is worse than the newest
    one. Raises DataError if there is no report, or if it is not about these weights and the newest release, and
    ReleaseWorse.
    """
    generator, state = generator_from_checkpoint(run)
    evaluation = read_evaluation(report)
    if evaluation["about"].get(WEIGHTS_MEASURED) != weights_digest(generator):
        raise DataError(f"{report} measured other weights than {run} holds; run `python -m training evaluate` again")
    expect_no_worse(evaluation, store, force)
    created = datetime.now(UTC).replace(microsecond=0)
    code_revision = find_code_revision()
    facts = read_facts(run)
    card = CARD.format(
        created=created,
        architecture=generator.architecture,
        num_parameters=_millions_of_parameters(generator),
        networks=describe_networks(generator),
        recipe_name=state["recipe"]["name"],
        steps=state["step"],
        minutes=state["trained_seconds"] / 60,
        device=facts.get("device", "an unknown device"),
        noise=REMOVES_NOISE if generator.has_denoiser else KEEPS_NOISE,
        parts="".join(f"; its {part} is of another run: {said}" for part, said in facts.get(PARTS_TAKEN, {}).items()),
        started_from=f"; it started from {facts['started_from']}" if "started_from" in facts else "",
        data=data,
        code_revision=code_revision,
        licence=licence,
        perceptual=USES_PERCEPTUAL_LOSS if has_perceptual_loss(state["recipe"]) else "",
        summary=summary_of(report),
        failures=failures,
        forced=f"\nPublished without regard to the release before it: {force}\n" if force else "",
    )
    publish = partial(
        publish_release,
        generator=generator,
        golden=png_of(golden.damaged),
        report_dir=report,
        model_card=card,
        recipe=state["recipe"],
        data_fingerprint=str(facts.get("data_fingerprint", "unknown")),
        scores=evaluation["scores"],
        code_revision=code_revision,
        created=created,
    )
    return publish(store) if isinstance(store, Path) else _publish_elsewhere(store, publish)


def describe_networks(generator: Generator) -> str:
    """What its parameters are of: `detector 0.5 M, verifier 1.8 M, filler 1.5 M`."""
    parts = dict(generator.named_children()) if isinstance(generator, DetectFill) else {"U-Net": generator}
    return ", ".join(f"{name} {_millions_of_parameters(part):.2g} M" for name, part in parts.items())


def _millions_of_parameters(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def has_perceptual_loss(recipe: Mapping[str, Any]) -> bool:
    """recipe: as a checkpoint holds it; one of an earlier version does not know that loss."""
    return any(phase.get("perceptual", 0.0) > 0.0 for phase in recipe["phases"])


def _publish_elsewhere(url: str, publish: Callable[[Path], Release]) -> Release:
    """Published in a folder first, under the number that is next in the store; then uploaded, and read back."""
    remote = RemoteStore(url)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / LAST_NUMBER).write_text(f"{remote.highest_number()}\n", encoding="ascii")
        release = publish(Path(folder))
        remote.upload(release)
    return _open(url).read(release.version)


def expect_writable(store: StoreAddress) -> None:
    """Raises StoreUnreachable, before hours of training, if a folder cannot be written, or another store not be read:
    what cannot be taken back is not written to try it."""
    if isinstance(store, str):
        RemoteStore(store).list_releases()
        return
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=store):
            pass
    except OSError as error:
        raise StoreUnreachable(
            f"the model store {store} cannot be written ({error.strerror or error}); set its rights, or name another "
            "with --model-store"
        ) from error


def _open(store: StoreAddress) -> Store:
    return open_store(store, copies=COPIES, num_copies=NUM_COPIES)


def newest_release(store: StoreAddress) -> Release | None:
    """The newest release that this version can load. Raises StoreUnreachable."""
    opened = _open(store)
    opened.refresh()
    for version in reversed(opened.versions()):
        with suppress(ReleaseInvalid):
            release = opened.read(version)
            load_generator(release)
            return release
    return None


def identity_of(release: Release) -> str:
    """What tells it from another store's release of the same number."""
    return f"release {release.version}, created {release.manifest.created:%Y-%m-%d %H:%M:%S}"


def expect_no_worse(evaluation: Mapping[str, Any], store: StoreAddress, force: str | None) -> None:
    """Raises ReleaseWorse if the run lost against the newest release on the same cases, DataError if that was not
    measured."""
    newest = newest_release(store)
    if newest is None or force:
        return
    if evaluation["about"].get(NEWEST_MEASURED) != identity_of(newest):
        raise DataError(
            f"the report does not compare the run with release {newest.version}, the newest in {store}; run "
            "`python -m training evaluate` again, or publish with --force REASON"
        )
    before, now = (
        evaluation["scores"][method] for method in (f"release {newest.version}", evaluation["about"][RUN_MEASURED])
    )
    losses = []
    for required in REQUIREMENTS:
        old, new = (_score(scores, required) for scores in (before, now))
        lost = (old - new) if required.higher_is_better else (new - old)
        if lost > required.most_lost:
            losses.append(f"{required.title} {new:.4g} instead of {old:.4g}, allowed to lose {required.most_lost}")
    if losses:
        raise ReleaseWorse(
            f"the run is worse than release {newest.version} on the same cases: {'; '.join(losses)}; train on, or "
            "publish with --force REASON"
        )


def _score(scores: Mapping[str, Mapping[str, float | None]], required: Requirement) -> float:
    """NaN, which loses against nothing, where it was not measured."""
    if required.family is None:
        return mean_over_damaged(scores, required.measure)
    return or_nan(scores.get(required.family, {}).get(required.measure))


def read_facts(run: Path) -> Mapping[str, Any]:
    """What `train` noted about the run: device and data. Raises DataError if that is damaged."""
    path = run / FACTS
    return _read_object(path, "take it away to go on without what it says of device and data") if path.is_file() else {}


def write_facts(run: Path, facts: Mapping[str, Any]) -> None:
    """Written beside, then renamed: a run that is killed while it writes keeps those before."""
    run.mkdir(parents=True, exist_ok=True)
    beside = run / f".{FACTS}.incoming"
    beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    beside.replace(run / FACTS)


def read_evaluation(report: Path) -> dict[str, Any]:
    path = report / "evaluation.json"
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `python -m training evaluate` first, with --report {report}")
    evaluation = _read_object(path, MEASURE_AGAIN)
    if not all(isinstance(evaluation.get(name), dict) for name in ("about", "scores")):
        raise DataError(f"{path} has no scores, or does not say of what; {MEASURE_AGAIN}")
    return evaluation


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object that a file holds. Raises DataError, with the advice, if it holds something else."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged (it holds no JSON object); {advice}")
    return found


def summary_of(report: Path) -> str:
    """The first table of evaluation.md. Raises DataError if there is none."""
    path = report / "evaluation.md"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rest = list(dropwhile(lambda line: not line.startswith("|"), lines))
    if not rest:
        raise DataError(f"{path} is damaged (it holds no table); {MEASURE_AGAIN}")
    return "\n".join(takewhile(lambda line: line.startswith("|"), rest))


def find_code_revision() -> str:
    """The commit that this code is at, marked when the working tree differs from it; `unknown` outside a checkout.

    An image holds no checkout; what it was built from is in CODE_REVISION.
    """
    if built_from := os.environ.get("CODE_REVISION"):
        return built_from
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision.stdout.strip()
