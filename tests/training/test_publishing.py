"""From a run to a release that loads."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from restoration.errors import DataError, ReleaseWorse, StoreUnreachable
from restoration.release import list_releases, read_release
from restoration.restorer import Restorer
from training import publishing
from training.cases import make_case
from training.evaluation import do_nothing, evaluate
from training.publishing import (
    NEWEST_MEASURED,
    RUN_MEASURED,
    WEIGHTS_MEASURED,
    expect_writable,
    find_code_revision,
    identity_of,
    newest_release,
    publish_run,
    read_evaluation,
    read_facts,
    summary_of,
    write_facts,
)
from training.samples import crop_sample
from training.trainer import Trainer, generator_from_checkpoint, weights_digest

from .small_recipes import DETECT_FILL, make_source, settings_for


@pytest.fixture(scope="module")
def golden(bank):
    return make_case(crop_sample("astronaut", 256), "astronaut", "mixtures", bank, seed=3)


@pytest.fixture(scope="module")
def run(bank, golden, tmp_path_factory):
    """A run of a few steps with its report."""
    folder = tmp_path_factory.mktemp("run")
    trainer = Trainer(DETECT_FILL, make_source(DETECT_FILL, bank), settings_for(folder))
    for generator in (trainer.generator, trainer.average):
        shrink_answers(generator)
    trainer.train()
    (folder / "run.json").write_text(json.dumps({"device": "an abacus", "data_fingerprint": "12ab"}))
    about = {WEIGHTS_MEASURED: weights_digest(generator_from_checkpoint(folder)[0])}
    evaluate([golden], {"nothing": do_nothing}, lpips=None, about=about).save(folder / "report")
    return folder


def shrink_answers(generator):
    """Untrained ones are too large for bfloat16."""
    for network in generator.children():
        network.head.weight.data.mul_(0.1)


def publish(run, store, golden):
    about = {"data": "two photographs", "licence": "Public domain.", "failures": "It has learnt nothing yet."}
    return publish_run(run, store, golden=golden, report=run / "report", **about)


def test_a_run_becomes_a_release_that_loads_and_says_where_it_comes_from(run, golden, tmp_path):
    release = publish(run, tmp_path, golden)
    assert (release.version, release.manifest.architecture) == ("0001", "detect-fill")
    assert release.manifest.recipe["seed"] == DETECT_FILL.seed
    assert release.manifest.data_fingerprint == "12ab"
    assert release.manifest.scores["nothing"]["mixtures"]["psnr"] > 5
    restorer = Restorer.load(read_release(tmp_path, "0001"), device="cpu")
    restoration = restorer.restore(golden.photo())
    assert restoration.samples.shape == (256, 256, 3)


def test_a_run_is_published_to_a_store_elsewhere_under_its_next_number(run, golden, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "COPIES", tmp_path / "copies")
    url = (tmp_path / "elsewhere").as_uri()
    about = {"data": "", "licence": "", "failures": "", "force": "it is the second"}
    for version in ("0001", "0002"):
        published = publish_run(run, url, golden=golden, report=run / "report", **about)
        assert published.version == version
        Restorer.load(read_release(tmp_path / "elsewhere", version), device="cpu")
    assert identity_of(newest_release(url)) == identity_of(published)


def test_the_model_card_states_data_licence_scores_and_failures(run, golden, tmp_path):
    card = (publish(run, tmp_path, golden).path / "README.md").read_text()
    for stated in ("two photographs", "Public domain.", "nothing yet.", "an abacus", "6 steps", "| nothing |"):
        assert stated in card
    assert "{" not in card


def test_the_model_card_names_every_network_and_whose_weights_were_in_the_loss(
    run, golden, bank, vgg_weights, tmp_path
):
    config = dataclasses.replace(DETECT_FILL.generator, detector_context=1, verifier_channels=(8, 8, 8, 64))
    phase = dataclasses.replace(DETECT_FILL.phases[1], num_steps=1, perceptual=0.5)
    recipe = dataclasses.replace(DETECT_FILL, generator=config, phases=(phase,))
    trainer = Trainer(recipe, make_source(recipe, bank), settings_for(tmp_path / "run", perceptual_weights=vgg_weights))
    for generator in (trainer.generator, trainer.average):
        shrink_answers(generator)
    trainer.train()
    about = {WEIGHTS_MEASURED: weights_digest(generator_from_checkpoint(tmp_path / "run")[0])}
    evaluate([golden], {"nothing": do_nothing}, lpips=None, about=about).save(tmp_path / "run" / "report")
    card = (publish(tmp_path / "run", tmp_path / "store", golden).path / "README.md").read_text()
    parts = (trainer.generator.detector, trainer.generator.verifier, trainer.generator.filler)
    millions = [sum(weight.numel() for weight in part.parameters()) / 1e6 for part in parts]
    assert "M parameters (detector {:.2g} M, verifier {:.2g} M, filler {:.2g} M), fp16".format(*millions) in card
    assert "VGG16 (torchvision's weights, BSD 3-Clause)" in card
    assert "VGG16" not in (publish(run, tmp_path / "other", golden).path / "README.md").read_text()


def test_a_run_without_a_report_is_not_published(run, golden, tmp_path):
    with pytest.raises(DataError, match=r"evaluation.json does not exist; run `python -m training evaluate`"):
        publish_run(run, tmp_path / "store", golden=golden, report=tmp_path, data="", licence="", failures="")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("content", ["", '{"about": {"photo', "[]", "{}"], ids=["empty", "half", "list", "other"])
def test_a_damaged_report_is_named(run, golden, tmp_path, content):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(DataError, match=r"evaluation.json .*; run `python -m training evaluate` again"):
        publish_run(run, tmp_path / "store", golden=golden, report=tmp_path, data="", licence="", failures="")


def test_a_report_without_its_tables_is_named(tmp_path):
    (tmp_path / "evaluation.md").write_text("# Evalu")
    with pytest.raises(DataError, match=r"evaluation.md is damaged \(it holds no table\); run"):
        summary_of(tmp_path)


@pytest.mark.parametrize("content", ["", '{"device": "an aba', "7"], ids=["empty", "half", "number"])
def test_damaged_facts_of_a_run_are_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run.json is damaged .*; take it away"):
        read_facts(tmp_path)


def test_facts_that_cannot_be_written_leave_those_before(tmp_path):
    write_facts(tmp_path, {"device": "an abacus"})
    (tmp_path / ".run.json.incoming").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_facts(tmp_path, {"device": "another"})
    assert read_facts(tmp_path) == {"device": "an abacus"}


def test_a_store_that_cannot_be_written_is_known_before_anything_is_published(run, golden, tmp_path):
    for store in (Path("/sys/kernel"), tmp_path / "store"):
        (tmp_path / "store").write_text("a file")
        with pytest.raises(StoreUnreachable, match=f"{store} cannot be written .*--model-store"):
            expect_writable(store)
        (tmp_path / "store").unlink()
    expect_writable(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
    expect_writable((tmp_path / "elsewhere").as_uri())


def test_a_report_about_other_weights_is_not_published_with_these(run, golden, tmp_path):
    report = tmp_path / "report"
    evaluate([golden], {"nothing": do_nothing}, lpips=None, about={WEIGHTS_MEASURED: "of yesterday's"}).save(report)
    with pytest.raises(DataError, match=r"measured other weights than .* holds; run `python -m training evaluate`"):
        publish_run(run, tmp_path / "store", golden=golden, report=report, data="", licence="", failures="")
    assert not (tmp_path / "store").exists()


# --- against the release before it ------------------------------------------------------------------------------------


def compared(run, golden, store, report, **changes):
    """A report on the run beside the store's newest release, the run's own scores changed in places."""
    evaluation = json.loads((run / "report" / "evaluation.json").read_text())
    measured = {"psnr": 30.0, "lpips": 0.05, "exact_outside": 0.999, "untouched": 0.5}
    families = {"strokes": measured, "mixtures": measured, "clean": {"psnr": 99.0, "untouched": 0.95}}
    ours = {family: {**scores, **changes.get(family, {})} for family, scores in families.items()}
    evaluation["scores"] |= {"release 0001": families, "detect-fill": ours}
    evaluation["about"] |= {NEWEST_MEASURED: identity_of(newest_release(store)), RUN_MEASURED: "detect-fill"}
    report.mkdir()
    (report / "evaluation.json").write_text(json.dumps(evaluation))
    (report / "evaluation.md").write_text((run / "report" / "evaluation.md").read_text())
    return {"golden": golden, "report": report, "data": "", "licence": "", "failures": ""}


@pytest.fixture
def store(run, golden, tmp_path):
    publish(run, tmp_path / "store", golden)
    return tmp_path / "store"


def test_a_run_that_is_as_good_as_the_newest_release_within_tolerance_is_published(run, golden, store, tmp_path):
    slightly = {"strokes": {"psnr": 29.9, "lpips": 0.051}, "clean": {"untouched": 0.94}}
    assert publish_run(run, store, **compared(run, golden, store, tmp_path / "report", **slightly)).version == "0002"


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"strokes": {"psnr": 29.0}}, "PSNR in dB 29.5 instead of 30, allowed to lose 0.1"),
        ({"mixtures": {"lpips": 0.06}}, "LPIPS 0.055 instead of 0.05"),
        ({"mixtures": {"exact_outside": 0.9}}, "share of unaltered pixels kept exactly"),
        ({"clean": {"untouched": 0.9}}, "share of clean photos left unchanged 0.9 instead of 0.95"),
    ],
    ids=["psnr", "lpips", "outside", "clean"],
)
def test_a_run_that_is_worse_is_not_published_unless_forced_with_a_reason(run, golden, store, tmp_path, worse, said):
    asked = compared(run, golden, store, tmp_path / "report", **worse)
    with pytest.raises(ReleaseWorse, match=f"worse than release 0001 .*{said}"):
        publish_run(run, store, **asked)
    assert list_releases(store) == ["0001"]
    release = publish_run(run, store, **asked, force="it is for glass negatives only")
    assert "it is for glass negatives only" in (release.path / "README.md").read_text()


def test_a_report_that_does_not_know_the_newest_release_is_not_enough(run, golden, store):
    with pytest.raises(DataError, match="does not compare the run with release 0001"):
        publish(run, store, golden)


def test_another_store_s_release_of_the_same_number_is_not_the_newest_one_here(run, golden, store, tmp_path):
    asked = compared(run, golden, store, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    report["about"][NEWEST_MEASURED] = "release 0001, created 1999-12-31 23:59:59"
    (tmp_path / "report" / "evaluation.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match="does not compare the run with release 0001"):
        publish_run(run, store, **asked)


def test_a_broken_newest_release_is_passed_over(run, golden, store, tmp_path):
    (store / "0002").mkdir()
    assert newest_release(store).version == "0001"
    assert newest_release(tmp_path / "elsewhere") is None


def test_the_summary_is_the_report_s_first_table(run):
    lines = summary_of(run / "report").splitlines()
    assert lines[0].startswith("| method | PSNR, dB |")
    assert lines[2].startswith("| nothing |")
    assert len(lines) == 3
    assert np.isfinite(read_evaluation(run / "report")["scores"]["nothing"]["mixtures"]["psnr"])


def test_the_code_revision_is_the_commit_marked_when_it_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "__file__", str(tmp_path / "publishing.py"))
    assert find_code_revision() == "unknown"

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
        finished = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return finished.stdout.strip()

    git("init")
    (tmp_path / "publishing.py").write_text("")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert find_code_revision() == commit[:12]
    (tmp_path / "publishing.py").write_text("# changed")
    assert find_code_revision() == f"{commit[:12]}-dirty"
