"""What the documents promise is there, and the repository holds nothing that it should not."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from restoration import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("model_store/*/*.md")])
DECISIONS = sorted(REPOSITORY.glob("docs/decisions/[0-9]*.md"))

LARGEST_FILE_BYTES = 2 * 2**20
LARGEST_RELEASE_FILE_BYTES = 16 * 2**20
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    paths = [REPOSITORY / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def make_targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def test_readme_shows_the_two_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "make serve" in readme
    assert "make test" in readme


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_commands_in_the_documents_exist(document: Path) -> None:
    in_code = re.findall(
        r"^\s*(?:\$ )?make ([a-z-]+)|`make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {first or second for first, second in in_code} <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_in_the_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    dead = [target for target in targets if ":" not in target and not (document.parent / target).exists()]
    assert dead == []


def test_changelog_tells_of_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in changelog


def test_set_up_looks_for_the_python_that_the_package_requires() -> None:
    major, minor = PYPROJECT["project"]["requires-python"].removeprefix(">=").split(".")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({major}, {minor})" in makefile
    assert f"Python {major}.{minor} or newer" in makefile


def test_continuous_integration_checks_and_tests() -> None:
    plan = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert "for goal in check test" in plan
    assert {"check", "test"} <= make_targets()


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("decision", DECISIONS, ids=name_of)
def test_decision_says_context_choice_and_alternatives(decision: Path) -> None:
    headings = re.findall(r"^## (.+)$", decision.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[:3] == ["Context", "Choice", "Alternatives"]


def test_no_file_is_larger_than_its_place_allows() -> None:
    too_large = []
    for path in tracked_files():
        in_a_release = path.is_relative_to(REPOSITORY / "model_store")
        if path.stat().st_size > (LARGEST_RELEASE_FILE_BYTES if in_a_release else LARGEST_FILE_BYTES):
            too_large.append(name_of(path))
    assert too_large == []


def test_no_pickle_is_in_the_repository() -> None:
    assert [name_of(path) for path in tracked_files() if path.suffix in PICKLES] == []


def test_nothing_that_is_generated_is_in_the_repository() -> None:
    generated = {".venv", "runs", "build", "__pycache__", ".scratch"}
    assert [name_of(path) for path in tracked_files() if generated & set(path.relative_to(REPOSITORY).parts)] == []
