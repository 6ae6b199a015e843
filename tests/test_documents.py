"""The commands in the documents work: each is run as it stands, against a real service.

A command stands in a fenced block whose first words say what a reader may expect of it, and what is done here:

    ```bash                      runs, and succeeds
    ```bash refused              runs, and fails: it shows an error
    ```bash not run: REASON      cannot be run here

Blocks of one page run in order, in one folder, which has what the pages speak of: old.jpg and others, a model store.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings

from .service.live import listening
from .service.serving import encode, publish, scratched_photo

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
BLOCK = re.compile(r"^```bash *(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED_COMMAND = re.compile(r"^    (?:\$ )?(?:curl|make|docker|\.venv/bin/\S+) .*$", re.MULTILINE)
STARTED_BY_HAND = {"README.md", "CONTRIBUTING.md"}
"""Their few commands set up, serve and test; `tests/test_setup.py` and continuous integration run those."""
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Command:
    page: str
    text: str
    told: str  # what the block's first line says after `bash`

    @property
    def fails(self) -> bool:
        return self.told == "refused"

    @property
    def is_run(self) -> bool:
        return not self.told.startswith("not run: ")


def commands_in(page: Path) -> list[Command]:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Command(page.name, text, told) for told, text in blocks]


RUN = {page.name: [command for command in commands_in(page) if command.is_run] for page in PAGES}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages take it for granted."""
    place = tmp_path_factory.mktemp("place")
    publish(place / "model_store", correction=0.05)
    (place / "old.jpg").write_bytes(encode(scratched_photo(), "JPEG"))
    for mask in ("tear.png", "faces.png"):
        (place / mask).write_bytes(encode(np.zeros((96, 128), np.uint8)))
    (place / "letter.txt").write_text("Dear Sir or Madam,\n")
    (place / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")  # else an error would pass for an answer
    return place


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with listening(create_app(Settings(model_store=place / "model_store"))) as address:
        yield address


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", [name for name, commands in RUN.items() if commands])
def test_the_commands_on_a_page_do_what_it_says(page: str, place: Path, address: str) -> None:
    environment = os.environ | {"CURL_HOME": str(place), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    for command in RUN[page]:
        script = command.text.replace("http://127.0.0.1:8000", address).replace(".venv/bin/python", sys.executable)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
        assert (ran.returncode != 0) == command.fails, f"{command.text}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_of_commands_is_run_or_says_why_not(page: Path) -> None:
    told = {command.told for command in commands_in(page)}
    assert [words for words in told if words not in ("", "refused") and not re.match(r"not run: \w+", words)] == []
    assert "```sh" not in page.read_text(encoding="utf-8"), "write ```bash"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in STARTED_BY_HAND], ids=lambda page: page.name
)
def test_commands_stand_in_fenced_blocks(page: Path) -> None:
    assert INDENTED_COMMAND.findall(page.read_text(encoding="utf-8")) == []
