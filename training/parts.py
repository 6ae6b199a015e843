"""A part of one run's generator put into another's: so that parts are trained apart, each for as long as it needs."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

from restoration.architectures import build_generator
from restoration.errors import CheckpointError, InvalidOption, ReleaseInvalid
from restoration.generator import DetectFillConfig
from training.checkpoint import load_checkpoint, save_checkpoint
from training.publishing import PARTS_TAKEN, read_facts, write_facts

PartName = Literal["detector", "verifier", "filler", "denoiser"]
PARTS: tuple[PartName, ...] = get_args(PartName)


def take_part(part: PartName, donor: Path, run: Path, into: Path) -> None:
    """Write a run into the folder `into` that is `run`, but for one part: weights and settings of that are the donor's.

    It can be calibrated, evaluated and published, but not trained on. Raises InvalidOption if `into` holds a run,
    CheckpointError if a run has no such part or the two do not make a generator.
    """
    if (into / "checkpoint.pt").exists():
        raise InvalidOption(f"{into} holds a checkpoint already; name another folder")
    giving, taking = (_expect_parts(load_checkpoint(folder), folder) for folder in (donor, run))
    if not any(name.startswith(f"{part}.") for name in giving["average"]):
        raise CheckpointError(f"{donor} has no {part} to give; name the run that trained one")
    settings = {name: value for name, value in _settings(giving).items() if part_of(name) == part}
    calibration = _calibration_with_part(part, giving, taking)
    recipe = {**taking["recipe"], "generator": {**_settings(taking), **settings}}
    recipe["name"] = f"{recipe['name']} + {part}"
    weights = {kind: _with_part(taking[kind], giving[kind], part) for kind in ("generator", "average")}
    _expect_whole(recipe["generator"], weights["average"])
    save_checkpoint(into, {**taking, **weights, "recipe": recipe, "calibration": calibration, "optimisers": {}})
    facts = dict(read_facts(run))
    facts[PARTS_TAKEN] = {**facts.get(PARTS_TAKEN, {}), part: describe(giving)}
    write_facts(into, facts)


def _calibration_with_part(part: PartName, giving: dict[str, Any], taking: dict[str, Any]) -> dict[str, Any]:
    """Each part's own. None, which errs on the side of caution, where a detector that decides by itself would become
    one that only suspects, or the other way round: to be calibrated again."""
    has_verifier = [bool(_settings(state)["verifier_channels"]) for state in (giving, taking)]
    if part in ("detector", "verifier") and has_verifier[0] != has_verifier[1]:
        return {}
    return {
        name: value
        for state, is_donor in ((taking, False), (giving, True))
        for name, value in state.get("calibration", {}).items()
        if (part_of(name) == part) == is_donor
    }


def _expect_whole(config: dict[str, Any], weights: dict[str, Any]) -> None:
    """Raises CheckpointError if the two do not make a generator."""
    try:
        build_generator("detect-fill", config).load_state_dict(weights)
    except (ReleaseInvalid, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"the two runs' parts do not make one generator ({reason}); take all that differ"
        ) from error


def describe(state: dict[str, Any]) -> str:
    return f"recipe {state['recipe']['name']}, {state['step']:,} steps, {state['trained_seconds'] / 60:.0f} minutes"


def _expect_parts(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    if state["recipe"]["name"] == "pix2pix":
        raise CheckpointError(f"{folder} is a run of the recipe pix2pix, whose generator has no parts; name another")
    return state


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    """All of the generator's; a run of an earlier version does not know every one."""
    return {**dataclasses.asdict(DetectFillConfig()), **state["recipe"]["generator"]}


def part_of(setting: str) -> PartName:
    """Whose a setting of `DetectFillConfig` is."""
    if setting == "required_evidence":
        return "detector"
    return next(part for part in PARTS if setting.startswith(f"{part}_"))


def _with_part(weights: dict[str, Any], others: dict[str, Any], part: PartName) -> dict[str, Any]:
    kept = {name: weight for name, weight in weights.items() if not name.startswith(f"{part}.")}
    return kept | {name: weight for name, weight in others.items() if name.startswith(f"{part}.")}
