"""Print what pyproject.toml requires: `python list_requirements.py`, or what an extra adds: `... training`."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["optional-dependencies"][sys.argv[1]] if sys.argv[1:] else project["dependencies"]
    print(*(requirement.replace(" ", "") for requirement in requirements), sep="\n")


if __name__ == "__main__":
    main()
