"""From a run to a release that loads."""

import json
import subprocess

import numpy as np
import pytest

from restoration.errors import DataError
from restoration.release import read_release
from restoration.restorer import Restorer
from training import publishing
from training.cases import make_case
from training.evaluation import do_nothing, evaluate
from training.publishing import WEIGHTS_MEASURED, find_code_revision, publish_run, read_evaluation, summary_of
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
    for generator in (trainer.generator, trainer.average):  # untrained answers are too large for bfloat16
        for network in (generator.detector, generator.filler):
            network.head.weight.data.mul_(0.1)
    trainer.train()
    (folder / "run.json").write_text(json.dumps({"device": "an abacus", "data_fingerprint": "12ab"}))
    about = {WEIGHTS_MEASURED: weights_digest(generator_from_checkpoint(folder)[0])}
    evaluate([golden], {"nothing": do_nothing}, lpips=None, about=about).save(folder / "report")
    return folder


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


def test_the_model_card_states_data_licence_scores_and_failures(run, golden, tmp_path):
    card = (publish(run, tmp_path, golden).path / "README.md").read_text()
    for stated in ("two photographs", "Public domain.", "nothing yet.", "an abacus", "6 steps", "| nothing |"):
        assert stated in card
    assert "{" not in card


def test_a_run_without_a_report_is_not_published(run, golden, tmp_path):
    with pytest.raises(DataError, match=r"evaluation.json does not exist; run `python -m training evaluate`"):
        publish_run(run, tmp_path / "store", golden=golden, report=tmp_path, data="", licence="", failures="")
    assert not (tmp_path / "store").exists()


def test_a_report_about_other_weights_is_not_published_with_these(run, golden, tmp_path):
    report = tmp_path / "report"
    evaluate([golden], {"nothing": do_nothing}, lpips=None, about={WEIGHTS_MEASURED: "of yesterday's"}).save(report)
    with pytest.raises(DataError, match=r"measured other weights than .* holds; run `python -m training evaluate`"):
        publish_run(run, tmp_path / "store", golden=golden, report=report, data="", licence="", failures="")
    assert not (tmp_path / "store").exists()


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
