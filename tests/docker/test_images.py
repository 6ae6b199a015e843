"""What can be said of the images without building them; docker/build-check.sh builds and runs them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import unknown_settings

from .processes import REPOSITORY

DOCKER = REPOSITORY / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
OF_EXTRAS = {
    extra: [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    for extra in ("training", "s3", "tracing")
}
IN_IMAGES = {str(requirement): requirement for each in (REQUIRED, *OF_EXTRAS.values()) for requirement in each}
CONFIGURED = [*DOCKERFILES, REPOSITORY / "docker-compose.yml", *DOCKER.rglob("*.yml"), *DOCKER.rglob("*.yaml")]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def pins() -> dict[str, str]:
    lines = (DOCKER / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name_of)
def test_what_is_copied_is_there_and_reaches_the_builder(dockerfile: Path) -> None:
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    let_through = re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sources
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []
    assert set(sources) <= set(let_through)


def test_both_images_share_the_layers_that_are_large() -> None:
    service, training = (
        (DOCKER / f"{name}.Dockerfile").read_text(encoding="utf-8") for name in ("service", "training")
    )
    shared, _, rest = training[training.index("ARG BASE_IMAGE") :].partition("\n# ---")
    assert rest
    assert shared.strip() in service


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name_of)
def test_a_change_to_the_code_comes_after_everything_that_is_installed(dockerfile: Path) -> None:
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    last_installed = max(index for index, line in enumerate(lines) if "pip install" in line)
    assert last_installed < lines.index("COPY restoration restoration")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name_of)
def test_nobody_runs_as_root(dockerfile: Path) -> None:
    users = re.findall(r"^USER (.+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["10001:10001"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name_of)
def test_what_changes_with_every_build_comes_last_and_behind_a_step_that_no_cache_mistakes(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    of_the_build = text[text.index("ARG VERSION") :]
    assert re.findall(r"^(?:RUN|COPY|ENV|LABEL)\b", of_the_build, re.MULTILINE)[0] == "RUN"
    assert "${REVISION}" not in text[: text.index("ARG VERSION")]
    assert re.search(r"^(?:COPY|ENTRYPOINT)\b", of_the_build, re.MULTILINE) is None


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name_of)
def test_torch_is_one_that_the_project_takes(dockerfile: Path) -> None:
    (found,) = re.findall(r"^ARG TORCH_VERSION=(.+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    (torch,) = (requirement for requirement in REQUIRED if requirement.name == "torch")
    assert found in torch.specifier


@pytest.mark.parametrize("requirement", IN_IMAGES.values(), ids=str)
def test_every_dependency_is_pinned_in_its_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    if name != "torch":
        assert name in pins(), "run docker/pin_dependencies.py"
        assert pins()[name] in requirement.specifier, "run docker/pin_dependencies.py"


def test_requirements_are_listed_as_pip_takes_them() -> None:
    both = [*OF_EXTRAS["s3"], *OF_EXTRAS["tracing"]]
    for arguments, expected in ([], REQUIRED), (["training,"], OF_EXTRAS["training"]), (["s3,tracing"], both):
        answer = list_requirements(*arguments)
        assert [Requirement(line) for line in answer.stdout.splitlines()] == expected
    assert "no such extra; there are training," in list_requirements("s4").stderr


def list_requirements(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, DOCKER / "list_requirements.py", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.parametrize("file", CONFIGURED, ids=name_of)
def test_every_setting_that_is_set_is_one(file: Path) -> None:
    settings = set(re.findall(r"(?<![\w{$])RESTORE_[A-Z_]+(?=[:=,]| *$)", file.read_text(encoding="utf-8")))
    assert unknown_settings(dict.fromkeys(settings, "")) == []
