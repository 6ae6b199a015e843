"""The command line, as it is typed."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restoration.generator import DetectFill, DetectFillConfig
from restoration.pix2pix import Pix2Pix, Pix2PixConfig
from restoration.publishing import publish_release
from restoration.release import Release, load_generator, read_release
from restoration.restorer import Restorer
from training import command, jobs, seams
from training.cases import Size, png_of
from training.checkpoint import load_checkpoint
from training.overlays import build_bank
from training.recipes import detect_fill_recipe
from training.samples import crop_sample
from training.splits import split_of
from training.trainer import generator_from_checkpoint

from .conftest import HELD_OUT_SHARE, names_for, write_photos
from .small_recipes import DENOISE, DETECT_FILL, RECIPES

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = ["train", "take-part", "calibrate", "evaluate", "publish", "preview", "run"]


@pytest.fixture
def training(monkeypatch, capsys):
    """Runs `python -m training ...` in this process; returns exit code, standard output and standard error."""

    def training(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        try:
            command.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return training


@pytest.fixture
def small_sizes(monkeypatch):
    """Networks of few channels, phases of few steps, a bank of few overlays."""
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(jobs.RECIPES, name, lambda num_photos, recipe=recipe: recipe)
    small = {"side_px": 96, "num_per_family": 6}
    for module in (command, jobs):
        monkeypatch.setattr(module, "build_bank", lambda split, **options: build_bank(split, **(options | small)))
    monkeypatch.setattr(jobs, "SIZES", (Size(64, 1.0, ("mixtures",)), Size(96, 1.0, ("mixtures",), is_scan=True)))
    monkeypatch.setattr(seams, "SIDE_PX", 448)


def publish_small(store: Path, config: DetectFillConfig | Pix2PixConfig) -> Release:
    """An untrained generator as release 0001."""
    generator = DetectFill(config) if isinstance(config, DetectFillConfig) else Pix2Pix(config)
    for name, weight in generator.named_parameters():
        if ".head." in name:
            weight.data.mul_(0.1)  # untrained answers are too large for bfloat16
    return publish_release(
        store,
        generator.eval(),
        golden=png_of(crop_sample("astronaut", 256)),
        report_dir=None,
        model_card="untrained",
        recipe={},
        data_fingerprint="none",
        scores={},
        code_revision="none",
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )


def error_line(error: str) -> str:
    """The one line that standard error holds."""
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    return lines[0]


# --- help and dry runs ------------------------------------------------------------------------------------------------


def test_help_names_every_command(training):
    code, output, _ = training("--help")
    assert code == 0
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_explains_its_options(training, name):
    code, output, _ = training(name, "--help")
    assert code == 0
    assert "--dry-run" in output
    assert "Usage" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "PHOTOS", "--minutes", "3"], {"settings": {"max_seconds": 180.0, "device": "cpu"}}),
        (
            ["train", "PHOTOS", "--recipe", "pix2pix"],
            {"recipe": {"name": "pix2pix", "l1": 10.0, "betas": [0.5, 0.999]}},
        ),
        (["train", "PHOTOS", "--damaged", "D"], {"data": {"damaged": "D", "overlays": None}}),
        (["train", "PHOTOS", "--precision", "float32"], {"settings": {"precision": "torch.float32"}}),
        (["run", "PHOTOS", "--seed", "9"], {"recipe": {"seed": 9}, "store": str(command.STORE)}),
        (["evaluate", "PHOTOS", "--num-cases", "2"], {"num_cases": 2, "device": "cpu", "report": "runs/latest/report"}),
        (["publish", "--run", "r"], {"run": "r", "report": "r/report"}),
        (["preview", "--columns", "5"], {"columns": 5, "photos": None}),
        (["take-part", "denoiser", "d", "--into", "i"], {"part": "denoiser", "donor": "d", "run": "runs/latest"}),
    ],
)
def test_a_dry_run_shows_the_resolved_settings_as_json_and_does_nothing(
    training, photo_folder, tmp_path, monkeypatch, arguments, expected
):
    monkeypatch.chdir(tmp_path)
    named = [str(photo_folder) if argument == "PHOTOS" else argument for argument in arguments]
    device = [] if named[0] in ("publish", "preview", "take-part") else ["--device", "cpu"]
    code, output, _ = training(*named, *device, "--dry-run")
    assert code == 0
    shown = json.loads(output)
    for name, value in expected.items():
        found = {key: shown[name][key] for key in value} if isinstance(value, dict) else shown[name]
        assert found == value
    assert list(tmp_path.iterdir()) == []


def test_a_steps_factor_is_resolved_for_every_phase(training, photo_folder):
    _, output, _ = training("train", photo_folder, "--steps-factor", "0.5", "--dry-run")
    phases = json.loads(output)["recipe"]["phases"]
    assert [phase["num_steps"] for phase in phases] == [phase.num_steps / 2 for phase in detect_fill_recipe(5).phases]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_missing_is_one_line_and_exit_code_2(training, tmp_path):
    code, _, error = training("train", tmp_path / "photos [old]")
    assert code == 2
    assert f"{tmp_path}/photos [old] is not a folder" in error_line(error)


def test_an_empty_folder_is_one_line_and_exit_code_2(training, tmp_path):
    code, _, error = training("train", tmp_path, "--run", tmp_path / "run", "--device", "cpu")
    assert code == 2
    assert "holds no photograph for train" in error_line(error)


def test_a_run_without_a_checkpoint_is_one_line_and_exit_code_2(training, photo_folder, tmp_path):
    for arguments in (["evaluate", photo_folder], ["publish"]):
        code, _, error = training(*arguments, "--run", tmp_path, *(["--report", tmp_path] if arguments[1:] else []))
        assert code == 2
        assert "checkpoint.pt does not exist" in error_line(error)


def test_a_damaged_checkpoint_is_one_line_and_exit_code_2(training, photo_folder, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half of it")
    code, _, error = training("evaluate", photo_folder, "--run", tmp_path, "--device", "cpu")
    assert code == 2
    assert "cannot be read" in error_line(error)


def test_a_run_is_not_written_over(training, photo_folder, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"a day of work")
    code, _, error = training("train", photo_folder, "--run", tmp_path, "--device", "cpu")
    assert code == 2
    assert "go on with --resume" in error_line(error)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"a day of work"


@pytest.mark.usefixtures("small_sizes")
def test_a_run_does_not_go_on_with_other_data_or_arithmetic(training, photo_folder, tmp_path):
    options = ["--run", tmp_path / "run", "--device", "cpu", "--minutes", "0", "--resume"]
    assert training("train", photo_folder, *options[:-1])[0] == 0
    code, _, error = training("train", photo_folder, *options, "--precision", "float32")
    assert code == 2
    assert "was started with other precision" in error_line(error)
    more = write_photos(tmp_path / "more", [*names_for("train", 5), *names_for("evaluation", 1)])
    code, _, error = training("train", more, *options)
    assert code == 2
    assert "was started with other data" in error_line(error)


def test_a_device_that_is_not_there_is_one_line_and_exit_code_2(training, photo_folder):
    code, _, error = training("train", photo_folder, "--device", "cuda:99")
    assert code == 2
    error_line(error)


def test_missing_lpips_weights_are_noticed(training, photo_folder, tmp_path):
    code, _, error = training("evaluate", photo_folder, "--run", tmp_path, "--lpips-weights", tmp_path)
    assert code == 2
    assert f"{tmp_path} holds no alexnet_features_fp16.safetensors; " in error_line(error)
    assert "--lpips-weights" in error


@pytest.mark.usefixtures("small_sizes")
def test_missing_weights_of_a_perceptual_loss_are_noticed(training, photo_folder, tmp_path, monkeypatch):
    phase = dataclasses.replace(DETECT_FILL.phases[1], perceptual=0.5)
    recipe = dataclasses.replace(DETECT_FILL, phases=(phase,))
    monkeypatch.setitem(jobs.RECIPES, "detect-fill", lambda num_photos: recipe)
    named = ["--run", tmp_path / "run", "--perceptual-weights", tmp_path]
    code, _, error = training("train", photo_folder, "--device", "cpu", *named)
    assert code == 2
    assert f"{tmp_path} holds no vgg16_features_to_relu3_3_fp16.safetensors; " in error_line(error)
    assert "with --perceptual-weights" in error


def test_run_says_before_training_that_nothing_is_held_out(training, tmp_path):
    write_photos(tmp_path / "photos", names_for("train", 1))
    code, _, error = training("run", tmp_path / "photos", "--run", tmp_path / "run")
    assert code == 2
    assert "1 photographs, and none of them is among the 5% that are held out" in error_line(error)
    assert not (tmp_path / "run").exists()


def test_run_says_before_training_that_its_store_cannot_be_written(training, photo_folder, tmp_path):
    code, _, error = training("run", photo_folder, "--run", tmp_path / "run", "--model-store", "/sys/kernel")
    assert code == 2
    assert "the model store /sys/kernel cannot be written" in error_line(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["validation", "evaluation"])
def test_run_says_before_training_that_a_held_out_photograph_cannot_be_used(training, tmp_path, split):
    photos = write_photos(tmp_path / "photos", [*names_for("train", 1), *names_for("evaluation", 1)])
    name = names_for(split, 2)[1]
    (photos / name).write_bytes(b"half of one")
    options = ["--run", tmp_path / "run", "--model-store", tmp_path / "store"]
    code, _, error = training("run", photos, *options)
    assert code == 2
    assert f"{name} cannot be read as a photograph" in error_line(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("small_sizes")
def test_an_error_of_the_system_is_one_line_and_exit_code_2(training, photo_folder, tmp_path):
    """A full disk: as the run's facts are written, as its checkpoint is; and a store that is read-only."""
    run = tmp_path / "run"
    options = ["--run", run, "--device", "cpu"]
    assert training("train", photo_folder, *options, "--minutes", "0")[0] == 0
    for name, said in ((".run.json.incoming", "No space left"), (".checkpoint.pt.incoming", "checkpoint.pt cannot be")):
        (run / name).symlink_to("/dev/full")
        code, _, error = training("train", photo_folder, *options, "--resume")
        assert code == 2, error
        assert said in error.splitlines()[-1]
        (run / name).unlink()
    assert load_checkpoint(run)["step"] == 1
    assert training("train", photo_folder, *options, "--resume")[0] == 0
    evaluated = ["--num-cases", "1", "--model-store", tmp_path / "store"]
    assert training("evaluate", photo_folder, *options, *evaluated)[0] == 0
    code, _, error = training("publish", "--run", run, "--model-store", "/sys/kernel")
    assert code == 2, error
    assert re.search(r"^error: /sys/kernel/\S+: (Operation not permitted|Permission|Read-only)", error_line(error))


def test_a_seed_beyond_any_generator_s_is_refused_with_the_range(training, photo_folder):
    code, _, error = training("train", photo_folder, "--seed", 2**64, "--dry-run")
    assert code == 2
    assert str(2**64 - 1) in error
    assert training("train", photo_folder, "--seed", 2**64 - 1, "--dry-run")[0] == 0


def test_a_picture_of_unknown_format_is_refused_before_it_is_drawn(training, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "draw_preview", lambda *_: pytest.fail("it was drawn"))
    for name in ("p.xyz", "p"):
        code, _, error = training("preview", "--output", tmp_path / name)
        assert code == 2
        assert f"{tmp_path / name} names no format" in error_line(error)


@pytest.mark.usefixtures("small_sizes")
def test_names_that_are_not_utf8_are_trained_on_and_measured(training, tmp_path):
    photos = write_photos(tmp_path / "photos", [os.fsdecode(b"caf\xe9.png"), *names_for("train", 2)])
    held_out = (os.fsdecode(b"caf\xe9_%d.png" % index) for index in range(1000))
    write_photos(photos, [next(name for name in held_out if split_of(name, HELD_OUT_SHARE) == "evaluation")])
    options = ["--run", tmp_path / "run", "--device", "cpu"]
    assert training("run", photos, *options, "--dry-run")[0] == 0
    code, _, error = training("train", photos, *options)
    assert code == 0, error
    measured = ["--num-cases", "1", "--model-store", tmp_path / "store", "--processes", "2"]
    code, _, error = training("evaluate", photos, *options, *measured)
    assert code == 0, error


@pytest.mark.usefixtures("small_sizes")
def test_held_out_pictures_of_a_few_pixels_do_not_stop_the_evaluation(training, photo_folder, tmp_path, caplog):
    photos = write_photos(tmp_path / "photos", names_for("train", 2) + names_for("evaluation", 1))
    for name, side_px in zip(names_for("evaluation", 4)[1:], (1, 3, 5), strict=True):
        write_photos(photos, [name], side_px)
    for name in names_for("validation", 2):
        write_photos(photos, [name], side_px=3)
    options = ["--run", tmp_path / "run", "--device", "cpu"]
    assert training("train", photos, *options, "--minutes", "0")[0] == 0
    assert training("calibrate", photos, *options)[0] == 0
    code, _, error = training("evaluate", photos, *options, "--num-cases", "1", "--model-store", tmp_path / "store")
    assert code == 0, error
    assert "- held-out photographs: 1\n" in (tmp_path / "run" / "report" / "evaluation.md").read_text()
    assert [message.partition(" px")[0] for message in caplog.messages] == [
        f"{num} held-out photographs have a short side below 32" for num in (2, 3)
    ]


def test_run_says_before_training_that_all_that_is_held_out_is_too_small(training, tmp_path):
    photos = write_photos(tmp_path / "photos", names_for("train", 1))
    write_photos(photos, names_for("evaluation", 1), side_px=5)
    code, _, error = training("run", photos, "--run", tmp_path / "run")
    assert code == 2
    assert "a short side of at least 32 px" in error_line(error)


def test_an_option_that_there_is_not_is_refused(training, photo_folder):
    assert training("train", photo_folder, "--epochs", "3")[0] == 2
    assert training("train", photo_folder, "--recipe", "diffusion")[0] == 2
    assert training("train", photo_folder, "--minutes", "-1")[0] == 2


# --- in a process of its own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["docker-stop", "ctrl-c"])
def test_a_signal_leaves_a_checkpoint_and_resume_goes_on(training, paired_folders, tmp_path, sent):
    """The default recipe with its full networks, on paired folders. Ctrl-C reaches the worker process, too."""
    damaged, clean = paired_folders
    options = ["--damaged", damaged, "--run", tmp_path, "--device", "cpu"]
    arguments = [sys.executable, "-m", "training", "train", clean, *options, "--workers", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(tmp_path / "curves", process)
        time.sleep(2.0)  # the worker process is under way
        os.killpg(process.pid, sent)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    stopped_at = load_checkpoint(tmp_path)["step"]
    assert f"stopped at step {stopped_at} of" in error
    code, _, error = training("train", clean, *options, "--resume", "--minutes", "0")
    assert code == 0, error
    assert load_checkpoint(tmp_path)["step"] == stopped_at + 1


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- from photographs to a release ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("recipe", RECIPES)
def test_train_stops_and_goes_on(training, photo_folder, tmp_path, recipe):
    """`--minutes` stops with a checkpoint, `--resume` goes on from there."""
    options = ["--recipe", recipe, "--run", tmp_path, "--device", "cpu"]
    assert training("train", photo_folder, *options, "--minutes", "0")[0] == 0
    assert load_checkpoint(tmp_path)["step"] == 1
    code, _, error = training("train", photo_folder, *options, "--resume")
    assert code == 0
    assert "finished at step 6 of 6" in error
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts.keys() == {"device", "data_fingerprint", "precision", "started_from"}


@pytest.mark.usefixtures("small_sizes")
def test_a_run_starts_from_a_release_and_says_so(training, photo_folder, tmp_path, monkeypatch):
    """With the weights that fit: the filler is the same, the detector has another shape."""
    release = publish_small(tmp_path / "store", replace(DETECT_FILL.generator, detector_dilations=(1, 1)))
    options = ["--run", tmp_path / "run", "--device", "cpu"]
    code, _, error = training("train", photo_folder, *options, "--start-from", release.path, "--minutes", "0")
    assert code == 0, error
    before, after = load_generator(release).state_dict(), load_checkpoint(tmp_path / "run")["generator"]
    assert f"took {len(after)} of {len(after)} weights from release 0001" in error
    assert torch.equal(before["filler.stem.weight"], after["filler.stem.weight"])  # the first phase is the detector's
    assert training("train", photo_folder, *options, "--resume")[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["started_from"].startswith(
        "release 0001, created 20"
    )


@pytest.mark.usefixtures("small_sizes")
def test_a_run_that_started_from_nothing_cannot_claim_a_release_later(training, photo_folder, tmp_path):
    release = publish_small(tmp_path / "store", DETECT_FILL.generator)
    options = ["--run", tmp_path / "run", "--device", "cpu"]
    assert training("train", photo_folder, *options, "--minutes", "0")[0] == 0
    code, _, error = training("train", photo_folder, *options, "--resume", "--start-from", release.path)
    assert code == 2
    assert "started with other starting weights" in error_line(error)


@pytest.mark.usefixtures("small_sizes")
def test_a_run_goes_on_with_the_release_s_calibration(training, photo_folder, tmp_path):
    calibrated = replace(DETECT_FILL.generator, detector_scale=1.5, detector_shift=7.5, required_evidence=4.5)
    release = publish_small(tmp_path / "store", calibrated)
    options = ["--run", tmp_path / "run", "--device", "cpu", "--start-from", release.path]
    assert training("train", photo_folder, *options)[0] == 0
    assert generator_from_checkpoint(tmp_path / "run")[0].config == calibrated


@pytest.mark.usefixtures("small_sizes")
def test_a_release_gets_a_denoiser_and_another_run_takes_it(training, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(jobs.RECIPES, "denoise", lambda num_photos: DENOISE)
    release = publish_small(tmp_path / "store", DETECT_FILL.generator)
    started = ["--start-from", release.path, "--recipe", "denoise", "--run", tmp_path / "denoise"]
    code, _, error = training("train", photo_folder, "--device", "cpu", *started)
    assert code == 0, error
    before, after = load_generator(release).state_dict(), load_checkpoint(tmp_path / "denoise")["average"]
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert any(name.startswith("denoiser.") for name in after)
    assert training("train", photo_folder, "--device", "cpu", "--run", tmp_path / "run", "--minutes", "0")[0] == 0
    taken = ["denoiser", tmp_path / "denoise", "--run", tmp_path / "run", "--into", tmp_path / "both"]
    code, _, error = training("take-part", *taken)
    assert code == 0, error
    assert generator_from_checkpoint(tmp_path / "both")[0].has_denoiser
    assert "holds a checkpoint already" in error_line(training("take-part", *taken)[2])


def test_a_part_that_is_not_trained_stays_as_large_as_it_is():
    release = {"denoiser_channels": [8, 8], "detector_channels": [4, 4], "required_evidence": 7.0}
    kept = jobs.with_parts_of(RECIPES["detect-fill"], release).generator
    assert (kept.denoiser_channels, kept.detector_channels) == ((8, 8), DETECT_FILL.generator.detector_channels)
    kept = jobs.with_parts_of(DENOISE, release).generator
    assert (kept.denoiser_channels, kept.detector_channels) == (DENOISE.generator.denoiser_channels, (4, 4))
    assert (kept.required_evidence, kept.filler_channels) == (7.0, DetectFillConfig().filler_channels)
    assert jobs.with_parts_of(RECIPES["pix2pix"], {"channels": 2}) == RECIPES["pix2pix"]


@pytest.mark.parametrize("recipe", ["fine-tune", "fine-tune-gpu", "denoise"])
def test_fine_tuning_needs_a_release_to_go_on_from(training, photo_folder, tmp_path, recipe):
    code, _, error = training("train", photo_folder, "--recipe", recipe, "--run", tmp_path)
    assert code == 2
    assert "--start-from" in error_line(error)


@pytest.mark.usefixtures("small_sizes")
def test_a_release_of_which_nothing_fits_is_refused(training, photo_folder, tmp_path):
    release = publish_small(tmp_path / "store", Pix2PixConfig(channels=2))
    options = ["--run", tmp_path / "run", "--device", "cpu", "--start-from", release.path]
    code, _, error = training("train", photo_folder, *options)
    assert code == 2
    assert "no weight of the pix2pix generator fits" in error_line(error)
    assert "holds no release 0009" in error_line(
        training("train", photo_folder, *options[:-1], tmp_path / "store" / "0009")[2]
    )


@pytest.mark.usefixtures("small_sizes")
def test_run_trains_evaluates_and_publishes_in_one(training, photo_folder, tmp_path, monkeypatch):
    """On anybody's photographs, without any overlay file."""
    # so many steps that answers are of a size that bfloat16 can hold within the self-test's tolerance
    steps = {"detector": 60, "filler": 120}
    phases = [
        dataclasses.replace(phase, num_steps=steps[phase.trains], learning_rate=4e-3)
        for phase in DETECT_FILL.phases[:2]
    ]
    trained = dataclasses.replace(DETECT_FILL, generator=DENOISE.generator, phases=(*phases, *DENOISE.phases))
    monkeypatch.setitem(jobs.RECIPES, "detect-fill", lambda num_photos: trained)
    run, store = tmp_path / "run", tmp_path / "store"
    code, _, error = training(
        "run", photo_folder, "--run", run, "--model-store", store, "--num-cases", "1", "--device", "cpu"
    )
    assert code == 0, error
    assert "published release 0001" in error
    report = run / "report"
    scores = json.loads((report / "evaluation.json").read_text())["scores"]
    told = {f"{method}, true mask" for method in ("telea", "navier-stokes", "detect-fill")}
    assert scores.keys() == {"nothing", "median and telea", "detect-fill", *told}
    assert "mixtures" in scores["detect-fill"]
    assert "| detect-fill |" in (report / "evaluation.md").read_text()
    assert "## Noise: PSNR, dB" in (report / "evaluation.md").read_text()
    with Image.open(report / "contact_sheet.png") as sheet:
        assert sheet.height > 6 * 256
    release = read_release(store, "0001")
    expected = {"report/evaluation.json", "report/contact_sheet.png", "golden/denoised.png"}
    assert expected <= release.manifest.files.keys()
    assert "go\nif that is asked for (`denoise`)" in (release.path / "README.md").read_text()
    assert Restorer.load(release, device="cpu").release.version == "0001"


@pytest.mark.usefixtures("small_sizes")
def test_two_runs_of_one_recipe_are_compared_side_by_side(training, photo_folder, tmp_path):
    runs = [tmp_path / "before", tmp_path / "after"]
    for run in runs:
        assert training("train", photo_folder, "--run", run, "--device", "cpu")[0] == 0
    publish_small(tmp_path / "store", DETECT_FILL.generator)
    compared = ["--baseline", runs[0], "--model-store", tmp_path / "store"]
    options = ["--run", runs[1], *compared, "--num-cases", "1", "--processes", "2", "--device", "cpu"]
    assert training("evaluate", photo_folder, *options)[0] == 0
    scores = json.loads((runs[1] / "report" / "evaluation.json").read_text())["scores"]
    blind = {name for name in scores if "true mask" not in name}
    assert blind == {"nothing", "median and telea", "release 0001", "detect-fill", "detect-fill, after"}


@pytest.mark.parametrize("with_folders", [False, True])
def test_preview_draws_a_row_a_family_with_or_without_folders(
    training, photo_folder, overlay_folder, tmp_path, with_folders
):
    output = tmp_path / "sheets" / "damage.png"
    folders = [photo_folder, "--overlays", overlay_folder] if with_folders else []
    code, _, error = training("preview", *folders, "--output", output, "--columns", "2", "--crop-px", "64")
    assert code == 0
    assert str(output) in error.replace("\n", "")
    with Image.open(output) as sheet:
        assert sheet.size == (90 + 2 * 68, (8 + 2) * 68)  # the families, mixtures, and their masks
        masks = [np.asarray(sheet)[-68:-4, left : left + 64] for left in (90, 158)]
        assert all(set(np.unique(mask)) == {0, 255} for mask in masks)


def test_the_fingerprint_tells_folders_apart(photo_folder, paired_folders, overlay_folder):
    fingerprints = [
        jobs.Data(photo_folder, None, None),
        jobs.Data(photo_folder, None, overlay_folder),
        jobs.Data(paired_folders[1], paired_folders[0], None),
    ]
    assert len({data.fingerprint() for data in fingerprints}) == 3
    assert jobs.Data(photo_folder, None, None).fingerprint() == fingerprints[0].fingerprint()
