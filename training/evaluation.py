"""Evaluation on held-out photos with held-out damage, through the function that the service calls.

Methods are compared on the same cases: doing nothing, classical inpainting *given the true mask* (an oracle that no
user has), a script that looks for outliers, and generators, which must find the damage themselves.
"""

import json
import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from restoration.device import DeviceGenerator, choose_precision
from restoration.generator import Generator
from restoration.restorer import RestoreOptions, restore_photo
from training.cases import CASE_FAMILIES, NEAR_PX, Case
from training.metrics import LPIPS, detection_scores, exact_share, mean_error, psnr, ssim
from training.pictures import draw_sheet, save_sheet

Scores = dict[str, float]


@dataclass(frozen=True, eq=False)
class Outcome:
    """picture: (H, W, 3) uint8; found: (H, W) bool, what it took for damage, None for a method that is told."""

    picture: np.ndarray
    found: np.ndarray | None = None


Method = Callable[[Case], Outcome]


def do_nothing(case: Case) -> Outcome:
    return Outcome(case.damaged)


def inpaint_telea(case: Case) -> Outcome:
    """Telea 2004, as OpenCV has it, with the true mask widened by a pixel and its customary radius of 3 px."""
    return Outcome(cv2.inpaint(case.damaged, _widen(case.altered), 3, cv2.INPAINT_TELEA))


def inpaint_navier_stokes(case: Case) -> Outcome:
    """Bertalmio et al. 2001, as OpenCV has it, told the same as Telea."""
    return Outcome(cv2.inpaint(case.damaged, _widen(case.altered), 3, cv2.INPAINT_NS))


def inpaint_outliers(case: Case) -> Outcome:
    """What a script does in an afternoon: whatever differs from the median around it by 40 levels, inpainted."""
    grey = cv2.cvtColor(case.damaged, cv2.COLOR_RGB2GRAY)
    mask = _widen(cv2.absdiff(grey, cv2.medianBlur(grey, 9)) > 40)
    return Outcome(cv2.inpaint(case.damaged, mask, 3, cv2.INPAINT_TELEA), mask.astype(bool))


def _widen(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool to (H, W) uint8: 1 under the mask and a pixel around it."""
    widened: np.ndarray = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return widened


def place(generator: Generator, device: torch.device) -> DeviceGenerator:
    """A copy of the generator on the device, as the service would run it."""
    return DeviceGenerator(deepcopy(generator), device, choose_precision(device))


def method_of(generator: Generator, device: torch.device, options: RestoreOptions | None = None) -> Method:
    """Restore blindly, as the service does."""
    return partial(_restore_blindly, place(generator, device), options)


def _restore_blindly(generator: DeviceGenerator, options: RestoreOptions | None, case: Case) -> Outcome:
    restoration = restore_photo(case.photo(), generator, options)
    return Outcome(restoration.samples, restoration.mask)


def method_told(generator: Generator, device: torch.device) -> Method:
    """Restore under the true mask alone, erased, as a mask is that a user sends: the filler without the detector."""
    return partial(_restore_told, place(generator, device))


def _restore_told(generator: DeviceGenerator, case: Case) -> Outcome:
    mask = _widen(case.altered).astype(bool)
    options = RestoreOptions(sensitivity=0.0, damage=mask, protect=~mask)
    return Outcome(restore_photo(case.photo(), generator, options).samples)


def score_case(case: Case, outcome: Outcome, lpips: LPIPS | None) -> Scores:
    """Every measure of one outcome; NaN where one has nothing to be measured on."""
    return {**_score_picture(case, outcome.picture, lpips), **score_found(case, outcome.found)}


def _score_picture(case: Case, picture: np.ndarray, lpips: LPIPS | None) -> Scores:
    altered = case.altered
    return {
        "psnr": psnr(picture, case.clean),
        "ssim": ssim(picture, case.clean),
        "lpips": lpips(picture, case.clean) if lpips else math.nan,
        "error_inside": mean_error(picture, case.clean, altered),
        "error_outside": mean_error(picture, case.clean, ~altered),
        "exact_outside": exact_share(picture, case.damaged, case.is_away),
        "untouched": float(np.array_equal(picture, case.damaged)),
    }


def score_found(case: Case, found: np.ndarray | None) -> Scores:
    return {} if found is None else detection_scores(found, case.visible, case.visible | ~case.altered)


@dataclass(frozen=True)
class Evaluation:
    """Mean scores by method and family, and what they were measured on."""

    scores: dict[str, dict[str, Scores]]  # method, family, measure
    about: dict[str, object]
    seams: Scores = field(default_factory=dict)
    """What `measure_seams` found for the run itself."""
    denoising: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """What `measure_denoising` found for the run itself, if it has a denoiser."""

    def mean(self, method: str, measure: str) -> float:
        """Mean over the families that are damaged."""
        return mean_over_damaged(self.scores[method], measure)

    def save(self, folder: Path) -> None:
        """Write evaluation.json and evaluation.md."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"about": self.about, "scores": self.scores, "seams": self.seams, "denoising": self.denoising}
        (folder / "evaluation.json").write_text(json.dumps(_without_nan(record), indent=2) + "\n", encoding="utf-8")
        (folder / "evaluation.md").write_text(self.to_markdown(), encoding="utf-8")

    def to_markdown(self) -> str:
        lines = ["# Evaluation", "", *(f"- {name}: {value}" for name, value in self.about.items()), ""]
        lines += ["## All damaged families, mean", "", *self._summary(), ""]
        for measure, title in TITLES.items():
            if any(measure in scores for families in self.scores.values() for scores in families.values()):
                lines += [f"## {title}", "", *self._by_family(measure), ""]
        if self.seams:
            lines += ["## Seams: the same photo on two grids of tiles, worst of several photos", ""]
            lines += [*_table(["measure", "value"], [[name, f"{value:.3f}"] for name, value in self.seams.items()]), ""]
        for measure in self._measures_of_noise():
            lines += [f"## Noise: {TITLES[measure]}", "", *self._by_noise(measure), ""]
        return "\n".join(lines)

    def _measures_of_noise(self) -> list[str]:
        scores = [each for methods in self.denoising.values() for each in methods.values()]
        return [measure for measure in TITLES if any(measure in each for each in scores)]

    def _by_noise(self, measure: str) -> list[str]:
        methods = list(next(iter(self.denoising.values())))
        rows = [
            [kind, *(_cell(scores[method][measure], measure) for method in methods)]
            for kind, scores in self.denoising.items()
        ]
        return _table(["what was added", *methods], rows)

    def _summary(self) -> list[str]:
        rows = [[method, *(_cell(self.mean(method, measure), measure) for measure in TITLES)] for method in self.scores]
        return _table(["method", *TITLES.values()], rows)

    def _by_family(self, measure: str) -> list[str]:
        methods = [m for m, families in self.scores.items() if any(measure in scores for scores in families.values())]
        families = next(iter(self.scores.values()))
        rows = [
            [family, *(_cell(self.scores[method][family].get(measure, math.nan), measure) for method in methods)]
            for family in families
        ]
        return _table(["family", *methods], rows)


TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS (AlexNet)",
    "error_inside": "Error inside the damage, levels",
    "error_outside": "Error outside, levels",
    "exact_outside": f"Pixels more than {NEAR_PX} px from altered ones that came back exactly",
    "untouched": "Photos that came back unchanged",
    "recall": "Damage map: recall",
    "precision": "Damage map: precision",
    "iou": "Damage map: IoU",
}


def evaluate(
    cases: Iterable[Case],
    methods: Mapping[str, Method],
    *,
    lpips: LPIPS | None,
    about: dict[str, object],
    num_processes: int = 1,
) -> Evaluation:
    """Run every method on every case.

    Several processes share the cases and this one's threads; the scores are those of one process with as many threads
    as each of them has. Methods must be such as can be pickled, then.
    """
    collected: dict[str, dict[str, list[Scores]]] = {method: {} for method in methods}
    for family, scores_of_methods in _score_cases(cases, methods, lpips, num_processes):
        for name, scores in scores_of_methods.items():
            collected[name].setdefault(family, []).append(scores)
    means = {
        name: {family: mean_scores(each) for family, each in families.items()} for name, families in collected.items()
    }
    return Evaluation(means, about)


CaseScores = tuple[str, dict[str, Scores]]
"""The family of a case, and what each method scored on it."""


def _score_cases(
    cases: Iterable[Case], methods: Mapping[str, Method], lpips: LPIPS | None, num_processes: int
) -> Iterator[CaseScores]:
    """In the order of the cases."""
    if num_processes == 1:
        yield from (_run_methods(methods, lpips, case) for case in cases)
        return
    with ProcessPoolExecutor(
        num_processes,
        multiprocessing.get_context("spawn"),  # a fork would inherit locks of torch's threads, and no GPU
        _begin_worker,
        (max(1, torch.get_num_threads() // num_processes), methods, lpips),
    ) as pool:
        waiting: deque[Future[CaseScores]] = deque()
        for case in cases:
            waiting.append(pool.submit(_run_methods_in_worker, case))
            if len(waiting) > 2 * num_processes:  # cases are made as they are needed: all of them would fill the memory
                yield waiting.popleft().result()
        yield from (each.result() for each in waiting)


def _begin_worker(num_threads: int, methods: Mapping[str, Method], lpips: LPIPS | None) -> None:
    global _run_methods_here
    torch.set_num_threads(num_threads)
    _run_methods_here = partial(_run_methods, methods, lpips)


_run_methods_here: Callable[[Case], CaseScores]
"""In a worker: so that methods are sent to it once, not with every case."""


def _run_methods_in_worker(case: Case) -> CaseScores:
    return _run_methods_here(case)


def _run_methods(methods: Mapping[str, Method], lpips: LPIPS | None, case: Case) -> CaseScores:
    as_it_is = _score_picture(case, case.damaged, lpips)  # what many methods leave many photos as
    scores_of_methods: dict[str, Scores] = {}
    for name, method in methods.items():
        outcome = method(case)
        is_unchanged = np.array_equal(outcome.picture, case.damaged)
        scores = as_it_is if is_unchanged else _score_picture(case, outcome.picture, lpips)
        scores_of_methods[name] = {**scores, **score_found(case, outcome.found)}
    return case.family, scores_of_methods


def mean_scores(each: Sequence[Scores]) -> Scores:
    names = dict.fromkeys(name for scores in each for name in scores)
    return {name: mean_of([scores.get(name, math.nan) for scores in each]) for name in names}


def mean_over_damaged(scores: Mapping[str, Mapping[str, float | None]], measure: str) -> float:
    """Mean over the damaged families in scores (family, measure); what is reported apart from them is not in it."""
    families = [family for family in scores if family in CASE_FAMILIES and family != "clean"]
    return mean_of([or_nan(scores[family].get(measure)) for family in families])


def or_nan(value: float | None) -> float:
    """A score of a report: null, or not there, where it could not be measured."""
    return math.nan if value is None else value


def mean_of(values: Sequence[float]) -> float:
    """Mean of those that could be measured."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def save_contact_sheet(cases: Sequence[Case], methods: Mapping[str, Method], path: Path) -> None:
    """One row a case, all of one size: damaged, then what each method made of it, then clean."""
    names = [name for name in methods if methods[name] is not do_nothing]
    rows = [[case.damaged, *(methods[name](case).picture for name in names), case.clean] for case in cases]
    save_sheet(draw_sheet(rows, ["damaged", *names, "clean"], [case.family for case in cases]), path)


def _cell(value: float, measure: str) -> str:
    if math.isnan(value):
        return "n/a"
    if measure in ("exact_outside", "untouched"):
        return f"{value:.1%}"
    return f"{value:.2f}" if measure in ("psnr", "error_inside", "error_outside") else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _without_nan(value: object) -> object:
    """JSON has no NaN: a score that could not be measured is null."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
