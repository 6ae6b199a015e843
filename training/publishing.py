"""From a run's checkpoint and its evaluation to a release with its model card."""

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restoration.errors import DataError
from restoration.publishing import publish_release
from restoration.release import Release
from training.cases import Case, png_of
from training.trainer import generator_from_checkpoint, weights_digest

WEIGHTS_MEASURED = "SHA-256 of the weights"
"""What a report says of the weights that it measured."""

CARD = """# Model card: release of {created:%Y-%m-%d}

| | |
|---|---|
| architecture | `{architecture}`, {num_parameters:.1f} M parameters, fp16 |
| recipe | `{recipe_name}`, {steps:,} steps, {minutes:.0f} minutes of training on {device}{started_from} |
| training data | {data} |
| code revision | `{code_revision}` |

## What it is for

Finding and filling structural damage (strokes, scratches, hairlines, dust, fibres, creases, stains, holes) in scanned
photographs. It leaves everything that it does not take for damage as it is; it does not remove noise or grain, does not
correct colours, does not sharpen and does not enlarge.

## Data and licences

{licence}

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
    store: Path,
    *,
    golden: Case,
    report: Path,
    data: str,
    licence: str,
    failures: str,
) -> Release:
    """Publish the averaged generator of a run. report: the folder that `evaluate` wrote.

    Raises DataError if there is no report, or if it is not about these weights.
    """
    generator, state = generator_from_checkpoint(run)
    evaluation = read_evaluation(report)
    if evaluation["about"].get(WEIGHTS_MEASURED) != weights_digest(generator):
        raise DataError(f"{report} measured other weights than {run} holds; run `python -m training evaluate` again")
    created = datetime.now(UTC).replace(microsecond=0)
    code_revision = find_code_revision()
    facts = read_facts(run)
    card = CARD.format(
        created=created,
        architecture=generator.architecture,
        num_parameters=sum(parameter.numel() for parameter in generator.parameters()) / 1e6,
        recipe_name=state["recipe"]["name"],
        steps=state["step"],
        minutes=state["trained_seconds"] / 60,
        device=facts.get("device", "an unknown device"),
        started_from=f", on from release {facts['started_from']}" if "started_from" in facts else "",
        data=data,
        code_revision=code_revision,
        licence=licence,
        summary=summary_of(report),
        failures=failures,
    )
    return publish_release(
        store,
        generator,
        golden=png_of(golden.damaged),
        report_dir=report,
        model_card=card,
        recipe=state["recipe"],
        data_fingerprint=str(facts.get("data_fingerprint", "unknown")),
        scores=evaluation["scores"],
        code_revision=code_revision,
        created=created,
    )


def read_facts(run: Path) -> Mapping[str, Any]:
    """What `train` noted about the run: device and data."""
    path = run / "run.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return facts


def read_evaluation(report: Path) -> dict[str, Any]:
    path = report / "evaluation.json"
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `python -m training evaluate` first, with --report {report}")
    evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return evaluation


def summary_of(report: Path) -> str:
    """The first table of evaluation.md."""
    lines = (report / "evaluation.md").read_text(encoding="utf-8").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rest = lines[first:]
    return "\n".join(rest[: next((i for i, line in enumerate(rest) if not line.startswith("|")), len(rest))])


def find_code_revision() -> str:
    """The commit that this code is at, marked when the working tree differs from it; `unknown` outside a checkout."""
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
