"""Set up the virtual environment: create it, choose the torch build, install the rest.

`make` runs this with the system's Python, so only the standard library is used. What is installed is listed in
pyproject.toml and nowhere else. torch comes first, on its own, because the choice of its build is ours: left alone, pip
takes PyPI's build for Linux, which brings gigabytes of CUDA libraries to machines that have no use for them.
docs/decisions/0003-torch-build-at-set-up.md says why in full.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_TIMEOUT_SECONDS = 5

TorchBuild = Literal["auto", "cpu", "cuda", "pypi"]

AskPip = Callable[[Sequence[str]], str | None]
"""Runs pip with these arguments; returns its standard output, or None where pip failed."""


class SetupError(Exception):
    """The environment cannot be set up; the message says what to do."""


@dataclass(frozen=True)
class TorchChoice:
    """The build that was chosen, and the arguments of `pip install` that get it (none: it is already there)."""

    description: str
    pip_arguments: tuple[str, ...] = ()


def main() -> None:
    arguments = parse_arguments()
    try:
        set_up(arguments.venv, arguments.extras, arguments.torch)
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    for stamp in arguments.stamps:
        stamp.touch()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=REPOSITORY / ".venv", help="the environment's folder")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml beside what serving needs: training,dev")
    parser.add_argument(
        "--torch",
        choices=["auto", "cpu", "cuda", "pypi"],
        default="auto",
        help="cpu and cuda force that build; pypi leaves the choice to pip and its configuration",
    )
    parser.add_argument("stamps", type=Path, nargs="*", help="files to touch when everything is installed")
    return parser.parse_args()


def set_up(venv: Path, extras: str, wanted: TorchBuild) -> None:
    python = create_venv(venv)

    def ask_pip(arguments: Sequence[str]) -> str | None:
        answer = subprocess.run([python, "-m", "pip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return answer.stdout.decode() if answer.returncode == 0 else None

    choice = choose_torch(
        torch_requirement(REPOSITORY / "pyproject.toml"),
        wanted,
        system=platform.system(),
        has_nvidia_gpu=has_nvidia_gpu(),
        installed=installed_torch(python),
        ask_pip=ask_pip,
    )
    say(choice.description)
    if choice.pip_arguments:
        pip_install(python, *choice.pip_arguments)
    package = f"{REPOSITORY}[{extras}]" if extras else str(REPOSITORY)
    pip_install(python, "--editable", package)


def create_venv(venv: Path) -> Path:
    """Return the Python of the environment, which is created where there is none that runs."""
    python = venv / "bin" / "python"
    if runs(python, "-m", "pip", "--version"):
        return python
    say(f"creating {venv} with Python {platform.python_version()}")
    if not runs(Path(sys.executable), "-m", "venv", "--clear", str(venv)):
        raise SetupError(
            f"{sys.executable} -m venv {venv} failed; on Debian and Ubuntu the package python3-venv is missing, "
            "elsewhere run that command by hand to see what it says"
        )
    return python


def torch_requirement(pyproject: Path) -> str:
    """Return the line of pyproject.toml that names torch, such as `torch>=2.10,<2.14`."""
    dependencies = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    for dependency in dependencies:
        if re.fullmatch(r"torch\b(?!-).*", dependency):
            return str(dependency)
    raise SetupError(f"{pyproject} names no torch among its dependencies, so there is no build to choose; add it there")


def choose_torch(
    requirement: str,
    wanted: TorchBuild,
    *,
    system: str,
    has_nvidia_gpu: bool,
    installed: str | None,
    ask_pip: AskPip,
) -> TorchChoice:
    """Choose the build of torch.

    requirement: as in pyproject.toml; system: as `platform.system()` gives it; installed: the version that the
    environment holds. Raises SetupError where the CPU build is demanded and cannot be had.
    """
    if installed and is_kept(installed, requirement, wanted, ask_pip):
        return TorchChoice(f"torch {installed} is already there; make setup TORCH=cpu or TORCH=cuda changes its build")
    if wanted == "pypi":
        return TorchChoice("torch as pip takes it: TORCH=pypi was asked for", replacing(requirement))
    if system != "Linux":
        return TorchChoice(f"torch from PyPI: its build for {system} has no CUDA in it", replacing(requirement))
    if wanted == "cuda" or (wanted == "auto" and has_nvidia_gpu):
        reason = "TORCH=cuda was asked for" if wanted == "cuda" else "there is an NVIDIA GPU"
        return TorchChoice(f"torch with CUDA from PyPI: {reason}", replacing(without_cpu_builds(requirement, ask_pip)))
    return choose_cpu_build(requirement, wanted, ask_pip)


def choose_cpu_build(requirement: str, wanted: TorchBuild, ask_pip: AskPip) -> TorchChoice:
    reason = "TORCH=cpu was asked for" if wanted == "cpu" else "there is no NVIDIA GPU"
    at_hand = torch_at_hand(requirement, ask_pip)
    if at_hand and is_cpu_build(at_hand):
        return TorchChoice(f"torch {at_hand} from a wheel at hand: {reason}", replacing("--no-index", requirement))
    if cpu_index_answers(ask_pip):
        return TorchChoice(
            f"torch from PyTorch's CPU index: {reason}", replacing("--index-url", CPU_INDEX, requirement)
        )
    if wanted == "cpu":
        raise SetupError(
            f"TORCH=cpu was asked for, but pip's find-links hold no wheel for {requirement} with +cpu in its name and "
            f"{CPU_INDEX} does not answer; put a wheel there or try again with TORCH=pypi"
        )
    return TorchChoice(
        f"torch from PyPI, with some gigabytes of CUDA that are not needed here: {CPU_INDEX} does not answer",
        replacing(requirement),
    )


def is_kept(installed: str, requirement: str, wanted: TorchBuild, ask_pip: AskPip) -> bool:
    """Whether the installed version is in the range, and of the build that was asked for."""
    if wanted in ("cpu", "cuda") and is_cpu_build(installed) != (wanted == "cpu"):
        return False
    answer = ask_pip(["install", "--dry-run", "--no-deps", "--no-index", "--quiet", "--report", "-", requirement])
    return answer is not None and not json.loads(answer)["install"]


def torch_at_hand(requirement: str, ask_pip: AskPip) -> str | None:
    """Return the version of torch that pip would install without asking any index, from its find-links."""
    report = ["--quiet", "--report", "-"]
    answer = ask_pip(["install", "--dry-run", "--ignore-installed", "--no-deps", "--no-index", *report, requirement])
    if answer is None:
        return None
    return str(json.loads(answer)["install"][0]["metadata"]["version"])


def without_cpu_builds(requirement: str, ask_pip: AskPip) -> str:
    """Add to the requirement that no CPU build at hand will do: 2.13.0+cpu would win over PyPI's 2.13.0."""
    while (at_hand := torch_at_hand(requirement, ask_pip)) and is_cpu_build(at_hand):
        requirement += f",!={at_hand}"
    return requirement


def cpu_index_answers(ask_pip: AskPip) -> bool:
    # pip is asked, not urllib, so that its proxies and certificates count.
    timeout = ["--timeout", str(CPU_INDEX_TIMEOUT_SECONDS), "--retries", "0"]
    answer = ask_pip(["index", "versions", "torch", "--index-url", CPU_INDEX, *timeout])
    return answer is not None and "+cpu" in answer


def is_cpu_build(version: str) -> bool:
    return version.endswith("+cpu")


def replacing(*arguments: str) -> tuple[str, ...]:
    # What torch itself depends on is left to the second installation, which asks the usual index.
    return ("--force-reinstall", "--no-deps", *arguments)


def has_nvidia_gpu() -> bool:
    listed_by_driver = any(Path("/proc/driver/nvidia/gpus").glob("*"))
    return listed_by_driver or Path("/dev/nvidia0").exists() or nvidia_smi_finds_one()


def nvidia_smi_finds_one() -> bool:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return False
    answer = subprocess.run([nvidia_smi, "--list-gpus"], capture_output=True, check=False)
    return answer.returncode == 0 and b"GPU" in answer.stdout


def installed_torch(python: Path) -> str | None:
    code = "import importlib.metadata as m; print(next((d.version for d in m.distributions(name='torch')), ''))"
    answer = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True)
    return answer.stdout.decode().strip() or None


def pip_install(python: Path, *arguments: str) -> None:
    if subprocess.run([python, "-m", "pip", "install", *arguments]).returncode != 0:
        raise SetupError(f"pip install {' '.join(arguments)} failed; its message is above")


def runs(executable: Path, *arguments: str) -> bool:
    try:
        return subprocess.run([executable, *arguments], stdout=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def say(message: str) -> None:
    print(f"set-up: {message}", flush=True)


if __name__ == "__main__":
    main()
