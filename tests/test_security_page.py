"""docs/security.md names a test for each promise: the named tests exist."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
PROMISED = PAGE[PAGE.index("## What is promised") : PAGE.index("## What is not promised")]
ROWS = [row for row in re.findall(r"^\| (.+) \|$", PROMISED, re.MULTILINE) if not row.startswith("promise |")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PROMISED)))


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_names_a_test(row: str) -> None:
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row)


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name: str) -> None:
    file, function = name.split("::")
    assert (REPOSITORY / file).is_file()
    assert function in names_of_tests(REPOSITORY / file)
