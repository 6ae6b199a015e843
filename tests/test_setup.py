"""The set-up's choice of the torch build, with pip's answers as pip gives them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import setup_environment
from setup_environment import CPU_INDEX, SetupError, TorchBuild, TorchChoice, choose_torch

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENT = "torch>=2.10,<2.14"


class Pip:
    """Answers as pip does: a report of what it would install from find-links, the versions on the CPU index."""

    def __init__(self, *, at_hand: Sequence[str] = (), cpu_index: str | None = None, satisfied: bool = False) -> None:
        self.at_hand = at_hand
        self.cpu_index = cpu_index
        self.satisfied = satisfied
        self.asked: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> str | None:
        self.asked.append(" ".join(arguments))
        if arguments[0] == "index":
            return self.cpu_index
        if self.satisfied and "--ignore-installed" not in arguments:
            return report([])
        excluded = re.findall(r"!=([^,]+)", arguments[-1])
        offered = [version for version in self.at_hand if version not in excluded]
        return report(offered[:1]) if offered else None


def report(versions: Sequence[str]) -> str:
    return json.dumps({"version": "1", "install": [{"metadata": {"name": "torch", "version": v}} for v in versions]})


def choose(
    wanted: TorchBuild, pip: Pip, *, system: str = "Linux", gpu: bool = False, installed: str | None = None
) -> TorchChoice:
    return choose_torch(REQUIREMENT, wanted, system=system, has_nvidia_gpu=gpu, installed=installed, ask_pip=pip)


def test_cpu_wheel_at_hand_is_taken_without_asking_any_index() -> None:
    pip = Pip(at_hand=["2.13.0+cpu"], cpu_index="torch (2.13.1+cpu)")
    choice = choose("auto", pip)
    assert "torch 2.13.0+cpu from a wheel at hand" in choice.description
    assert choice.pip_arguments[-2:] == ("--no-index", REQUIREMENT)
    assert all("--no-index" in asked for asked in pip.asked)


def test_cpu_index_is_taken_when_no_wheel_is_at_hand() -> None:
    choice = choose("auto", Pip(cpu_index="torch (2.13.0+cpu)\nAvailable versions: 2.13.0+cpu, 2.12.1+cpu"))
    assert "PyTorch's CPU index" in choice.description
    assert choice.pip_arguments[-3:] == ("--index-url", CPU_INDEX, REQUIREMENT)


def test_cuda_wheel_at_hand_is_no_cpu_build() -> None:
    choice = choose("auto", Pip(at_hand=["2.13.0"], cpu_index="torch (2.13.0+cpu)"))
    assert CPU_INDEX in choice.pip_arguments


def test_cpu_index_is_given_up_soon() -> None:
    pip = Pip()
    choose("auto", pip)
    assert "--timeout 5 --retries 0" in pip.asked[-1]


def test_pypi_is_the_last_resort_and_its_size_is_told() -> None:
    choice = choose("auto", Pip())
    assert "gigabytes of CUDA" in choice.description
    assert choice.pip_arguments[-1] == REQUIREMENT
    assert "--index-url" not in choice.pip_arguments


def test_gpu_gets_the_build_from_pypi_even_with_a_cpu_wheel_at_hand() -> None:
    choice = choose("auto", Pip(at_hand=["2.13.0+cpu", "2.12.1+cpu"]), gpu=True)
    assert "there is an NVIDIA GPU" in choice.description
    assert choice.pip_arguments[-1] == f"{REQUIREMENT},!=2.13.0+cpu,!=2.12.1+cpu"


@pytest.mark.parametrize("gpu", [False, True])
def test_mac_gets_the_ordinary_wheel(gpu: bool) -> None:
    choice = choose("auto", Pip(cpu_index="torch (2.13.0+cpu)"), system="Darwin", gpu=gpu)
    assert "no CUDA" in choice.description
    assert choice.pip_arguments[-1] == REQUIREMENT


def test_torch_that_is_there_and_in_range_stays() -> None:
    choice = choose("auto", Pip(satisfied=True), installed="2.12.0+cpu")
    assert "already there" in choice.description
    assert choice.pip_arguments == ()


def test_torch_out_of_range_is_replaced() -> None:
    choice = choose("auto", Pip(at_hand=["2.13.0+cpu"]), installed="2.5.0")
    assert choice.pip_arguments[0] == "--force-reinstall"


@pytest.mark.parametrize(
    ("wanted", "installed", "stays"),
    [("cpu", "2.13.0", False), ("cpu", "2.13.0+cpu", True), ("cuda", "2.13.0", True), ("cuda", "2.13.0+cpu", False)],
)
def test_build_that_is_asked_for_replaces_the_other(wanted: TorchBuild, installed: str, stays: bool) -> None:
    choice = choose(wanted, Pip(at_hand=["2.13.0+cpu"], satisfied=True), installed=installed)
    assert (choice.pip_arguments == ()) == stays


def test_pypi_asked_for_leaves_the_choice_to_pip() -> None:
    pip = Pip(at_hand=["2.13.0+cpu"])
    assert choose("pypi", pip).pip_arguments[-1] == REQUIREMENT
    assert pip.asked == []


def test_cpu_build_that_cannot_be_had_stops_the_set_up() -> None:
    with pytest.raises(SetupError, match=r"TORCH=cpu was asked for.*does not answer.*TORCH=pypi"):
        choose("cpu", Pip())


def test_range_comes_from_pyproject() -> None:
    requirement = setup_environment.torch_requirement(REPOSITORY / "pyproject.toml")
    assert re.fullmatch(r"torch>=[\d.]+,<[\d.]+", requirement)


def test_packages_named_like_torch_are_not_torch(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["torch-geometric>=2", "torchvision", "torch >=2.10"]\n')
    assert setup_environment.torch_requirement(pyproject) == "torch >=2.10"
    pyproject.write_text('[project]\ndependencies = ["torchvision"]\n')
    with pytest.raises(SetupError, match="names no torch"):
        setup_environment.torch_requirement(pyproject)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_fresh_stamps_mean_that_nothing_is_set_up(tmp_path: Path) -> None:
    commands = planned_commands(tmp_path, "test", stamps=["to-serve", "to-develop"])
    assert "setup_environment.py" not in commands
    assert "-m pytest" in commands


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_serving_asks_for_no_extras_and_testing_adds_them() -> None:
    serve = planned_commands(Path("/nowhere"), "serve")
    test = planned_commands(Path("/nowhere"), "test")
    assert "--extras" not in serve
    assert "--extras archive,benchmarks,ray,training,tracing,dev" in test


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_build_named_on_the_command_line_overrules_the_stamps(tmp_path: Path) -> None:
    commands = planned_commands(tmp_path, "setup", "TORCH=cpu", stamps=["to-serve", "to-develop"])
    assert "--torch cpu" in commands


def planned_commands(venv: Path, *arguments: str, stamps: Sequence[str] = ()) -> str:
    """What make would run, with an environment in `venv` that has these stamps."""
    for stamp in stamps:
        (venv / f".set-up-{stamp}").touch()
    command = ["make", "--dry-run", *arguments, f"VENV={venv}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
