import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from restoration.architectures import build_generator
from training.cases import Case, make_case
from training.evaluation import (
    Outcome,
    do_nothing,
    evaluate,
    inpaint_navier_stokes,
    inpaint_outliers,
    inpaint_telea,
    method_of,
    method_told,
    save_contact_sheet,
    score_case,
)
from training.samples import crop_sample

from .small_recipes import CPU


@pytest.fixture(scope="module")
def cases(bank) -> list[Case]:
    photo = crop_sample("astronaut", 128)
    return [make_case(photo, "astronaut", family, bank, seed=2) for family in ("strokes", "clean")]


@pytest.fixture(scope="module")
def generator():
    """Small, untrained: its detector takes everything for damage, its filler paints grey."""
    built = build_generator("detect-fill", {"detector_channels": [8] * 4, "filler_channels": [8] * 4}).eval()
    for network, bias in ((built.detector, 20.0), (built.filler, 0.0)):
        network.head.weight.data.zero_()
        network.head.bias.data.fill_(bias)
    return built


def oracle(case: Case) -> Outcome:
    return Outcome(case.clean, case.visible)


def test_doing_nothing_leaves_the_damage_and_all_else(cases):
    scores = score_case(cases[0], do_nothing(cases[0]), None)
    assert scores["error_inside"] > 5
    assert scores["error_outside"] < 1
    assert (scores["exact_outside"], scores["untouched"]) == (1.0, 1.0)
    assert "recall" not in scores


def test_an_oracle_has_no_error_and_finds_everything(cases):
    scores = score_case(cases[0], oracle(cases[0]), None)
    assert (scores["psnr"], scores["error_inside"], scores["untouched"]) == (100.0, 0.0, 0.0)
    assert (scores["recall"], scores["precision"], scores["iou"]) == (1.0, 1.0, 1.0)
    assert math.isnan(scores["lpips"])


def test_telea_with_the_true_mask_repairs_and_touches_nothing_else(cases):
    outcome = inpaint_telea(cases[0])
    scores = score_case(cases[0], outcome, None)
    assert scores["psnr"] > score_case(cases[0], do_nothing(cases[0]), None)["psnr"]
    assert scores["exact_outside"] > 0.8
    assert np.array_equal(inpaint_telea(cases[1]).picture, cases[1].damaged)


def test_navier_stokes_is_told_the_same(cases):
    outcome = inpaint_navier_stokes(cases[0])
    assert score_case(cases[0], outcome, None)["psnr"] > score_case(cases[0], do_nothing(cases[0]), None)["psnr"]
    assert np.array_equal(inpaint_navier_stokes(cases[1]).picture, cases[1].damaged)


def test_a_script_finds_a_white_line_on_a_plain_wall():
    wall = np.full((64, 64, 3), 90, np.uint8)
    scratched = wall.copy()
    scratched[30:33] = 250
    outcome = inpaint_outliers(Case("hairlines", "wall", scratched, wall))
    assert outcome.found[31].all()
    assert not outcome.found[:28].any()
    assert np.abs(outcome.picture.astype(int) - 90).mean() < 1


def test_a_generator_restores_what_it_finds_by_itself(cases, generator):
    outcome = method_of(generator, CPU)(cases[0])
    assert outcome.found.all()
    assert np.abs(outcome.picture.astype(int) - 128).max() <= 1


def test_a_generator_that_is_told_restores_the_true_mask_alone(cases, generator):
    outcome = method_told(generator, CPU)(cases[0])
    assert outcome.found is None
    assert np.abs(outcome.picture[cases[0].altered].astype(int) - 128).max() <= 1
    reached = cv2.dilate(cases[0].altered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(outcome.picture[~reached], cases[0].damaged[~reached])
    assert np.array_equal(method_told(generator, CPU)(cases[1]).picture, cases[1].damaged)


def test_evaluating_leaves_the_generator_as_it_was(cases, generator):
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    method_of(generator, CPU)(cases[0])
    assert all(weight.equal(before[name]) for name, weight in generator.state_dict().items())


@pytest.fixture(scope="module")
def evaluation(cases):
    return evaluate(cases, {"nothing": do_nothing, "oracle": oracle}, lpips=None, about={"photos": 1})


def test_every_method_is_measured_on_every_case(evaluation):
    assert evaluation.scores.keys() == {"nothing", "oracle"}
    assert all(families.keys() == {"strokes", "clean"} for families in evaluation.scores.values())


def test_clean_photos_and_what_is_reported_apart_do_not_enter_the_mean(evaluation, cases):
    assert evaluation.mean("nothing", "psnr") == evaluation.scores["nothing"]["strokes"]["psnr"]
    apart = [replace(cases[0], family="mixtures at 256 px"), replace(cases[0], family="heavy")]
    with_apart = evaluate([*cases, *apart], {"nothing": do_nothing}, lpips=None, about={})
    assert with_apart.mean("nothing", "psnr") == evaluation.mean("nothing", "psnr")
    assert "mixtures at 256 px" in with_apart.to_markdown()
    assert evaluation.scores["nothing"]["clean"]["psnr"] == 100.0


def test_several_cases_of_a_family_are_averaged(cases):
    worse = Case("strokes", "worse", cases[0].damaged, 255 - cases[0].damaged)
    scores = evaluate([cases[0], worse], {"nothing": do_nothing}, lpips=None, about={}).scores["nothing"]["strokes"]
    each = [score_case(case, do_nothing(case), None)["psnr"] for case in (cases[0], worse)]
    assert scores["psnr"] == pytest.approx(sum(each) / 2)


@pytest.fixture
def one_thread():
    """As many as each of two processes on two cores has: sums of float32 depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_report_what_one_does(cases, generator, tmp_path):
    """With more cases than may wait, in families that come back."""
    methods = {"nothing": do_nothing, "blind": method_of(generator, CPU), "told": method_told(generator, CPU)}
    for num_processes in (1, 2):
        evaluation = evaluate(cases * 4, methods, lpips=None, about={}, num_processes=num_processes)
        evaluation.save(tmp_path / str(num_processes))
    one, two = (json.loads((tmp_path / number / "evaluation.json").read_text()) for number in "12")
    assert one["scores"]["told"]["strokes"]["error_inside"] > 0
    assert one == two


def test_what_could_not_be_measured_is_null_and_not_available(evaluation, tmp_path):
    evaluation.save(tmp_path)
    record = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert record["about"] == {"photos": 1}
    assert record["scores"]["oracle"]["strokes"]["psnr"] == 100.0
    assert record["scores"]["oracle"]["strokes"]["lpips"] is None
    assert record["scores"]["oracle"]["clean"]["recall"] is None
    tables = (tmp_path / "evaluation.md").read_text()
    assert "| oracle | 100.00 | 1.000 | n/a | 0.00 |" in tables
    assert "## Damage map: recall" in tables


def test_the_contact_sheet_has_a_row_a_case_and_a_column_a_method(cases, tmp_path):
    save_contact_sheet(cases, {"nothing": do_nothing, "oracle": oracle}, tmp_path / "report" / "sheet.png")
    with Image.open(tmp_path / "report" / "sheet.png") as sheet:
        assert sheet.size == (90 + 3 * 132, 16 + 2 * 132)  # damaged, the oracle's, clean
        assert np.array_equal(np.asarray(sheet)[16:144, 90:218], cases[0].damaged)
