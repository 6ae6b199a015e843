"""Write constraints.txt: everything that the images may hold, in the versions that are installed here.

    .venv/bin/python docker/pin_dependencies.py

To be run after the tests have passed in this environment. torch is left out: the Dockerfiles say which, and where from.
What only some builds of torch need (CUDA's libraries, Triton) torch itself pins.
"""

import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DOCKER = Path(__file__).resolve().parent
CONSTRAINTS = DOCKER / "constraints.txt"
IN_IMAGES = ("training", "s3", "tracing")
"""Extras that an image can have."""
NEWEST_PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0"}
"""What a newer Python than this one needs besides is pinned, too, as far as it is installed here."""


def main() -> None:
    pins = sorted(f"{name}=={version(name)}" for name in required_by(project_requirements()) - {"torch"})
    head = "# Written by docker/pin_dependencies.py, from the environment that the tests passed in.\n"
    CONSTRAINTS.write_text(head + "\n".join(pins) + "\n", encoding="utf-8")


def project_requirements() -> list[Requirement]:
    """Of serving and training, and of the extras for images, as pyproject.toml has them now."""
    project = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    of_extras = [line for extra in IN_IMAGES for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*project["dependencies"], *of_extras]]


def required_by(roots: Iterable[Requirement]) -> set[str]:
    """Canonical names of the roots, and of what they require, directly or not, and is installed."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and is_installed(name):
            found.add(name)
            waiting += direct_requirements(requirement)
    return found


def direct_requirements(package: Requirement) -> Iterator[Requirement]:
    for line in distribution(package.name).requires or []:
        requirement = Requirement(line)
        pythons: list[dict[str, str]] = [{}, NEWEST_PYTHON]
        environments = [{**python, "extra": extra} for extra in {"", *package.extras} for python in pythons]
        if requirement.marker is None or any(requirement.marker.evaluate(where) for where in environments):
            yield requirement


def is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
