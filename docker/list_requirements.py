"""Print what pyproject.toml requires: `python list_requirements.py`, or what extras add: `... training,s3`."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [extra for extra in ",".join(sys.argv[1:]).split(",") if extra]
    by_extra = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in by_extra]:
        sys.exit(f"{', '.join(unknown)}: no such extra; there are {', '.join(by_extra)}")
    requirements = [line for extra in extras for line in by_extra[extra]] if extras else project["dependencies"]
    print(*(requirement.replace(" ", "") for requirement in requirements), sep="\n")


if __name__ == "__main__":
    main()
