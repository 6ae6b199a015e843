"""The commands in the documents work: each is run as it stands, against a real service.

`scripts/documents.py` says how the pages tell which are. Blocks of one page run in order, in one folder, which has what
the pages speak of: old.jpg and others, a model store, a folder of scans.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from documents import Command, commands_in

from service.app import create_app
from service.settings import Settings
from training import command as training

from .service.key_files import add
from .service.live import listening
from .service.serving import encode, publish, scratched_photo

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
INDENTED_COMMAND = re.compile(
    r"^    (?:\$ )?(?:curl|make|docker|kubectl|git|pip|python3?|export|\.venv/bin/\S+) .*$", re.MULTILINE
)
TIMEOUT_SECONDS = 120
ADDRESS = "http://127.0.0.1:8000"

COMMANDS = {page.name: commands_in(page) for page in PAGES}
RUN = {
    name: [command for command in commands if not command.reason and not command.is_for_a_clone and not command.options]
    for name, commands in COMMANDS.items()
}
DRY_RUN = [command for commands in COMMANDS.values() for command in commands if command.told == "with --dry-run"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages take it for granted."""
    place = tmp_path_factory.mktemp("place")
    publish(place / "model_store", correction=0.05)
    old = encode(scratched_photo(), "JPEG")
    for photo in ("old.jpg", "scans/box 1/old.jpg", "PHOTOS/old.jpg", "PHOTOS/older.jpg", "service/static/sample.jpg"):
        (place / photo).parent.mkdir(parents=True, exist_ok=True)
        (place / photo).write_bytes(old)
    for mask in ("tear.png", "faces.png"):
        (place / mask).write_bytes(encode(np.zeros((96, 128), np.uint8)))
    (place / "letter.txt").write_text("Dear Sir or Madam,\n")
    (place / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")  # else an error would pass for an answer
    return place


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with listening(create_app(Settings(model_store=place / "model_store"))) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a service that asks for a key, and the key."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    key = add(keys, scopes="restore admin")
    with listening(create_app(Settings(model_store=place / "model_store", api_keys_file=keys))) as address:
        yield address, key


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", [name for name, commands in RUN.items() if commands])
def test_the_commands_on_a_page_do_what_it_says(page: str, place: Path, address: str, guarded: tuple[str, str]) -> None:
    environment = os.environ | {"CURL_HOME": str(place), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    for command in RUN[page]:
        ran = subprocess.run(
            [*interpreter_of(command), prepared(command, address, guarded)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
        assert (ran.returncode != 0) == command.fails, f"{command.text}\n{ran.stdout}\n{ran.stderr}"


def interpreter_of(command: Command) -> list[str]:
    return [sys.executable, "-c"] if command.language == "python" else ["bash", "-euo", "pipefail", "-c"]


def prepared(command: Command, address: str, guarded: tuple[str, str]) -> str:
    """The text, with the address of a service that runs here, and this Python."""
    text = re.sub(r"(/models/|\brelease=)\d{4}\b", r"\g<1>0001", command.text)  # the release that this store has
    if command.needs_key:
        guarded_address, key = guarded
        return text.replace(ADDRESS, guarded_address).replace("rk_...", key)
    return text.replace(ADDRESS, address).replace(".venv/bin/python", sys.executable)


@pytest.mark.parametrize("page", ["api.md", "configuration.md", "deployment.md", "operations.md"])
def test_a_release_that_is_to_be_asked_for_is_in_the_store(page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    asked_for = re.findall(r"(?:such as `|/models/|--start-from \S+/|\brelease=|RESTORE_MODEL_VERSION=)(\d{4})\b", text)
    assert asked_for
    assert [version for version in asked_for if not (REPOSITORY / "model_store" / version).is_dir()] == []


@pytest.mark.parametrize("command", DRY_RUN, ids=lambda command: f"{command.page}: {command.text.splitlines()[0]}")
def test_commands_that_train_for_hours_are_understood(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --dry-run, and in this process, which has torch already."""
    monkeypatch.chdir(place)
    words = shlex.split(f"{command.text} {command.options}".replace("\\\n", " "))
    monkeypatch.setattr(sys, "argv", words[words.index("training") :])
    with contextlib.suppress(SystemExit):
        training.main()
    output = capsys.readouterr()
    assert output.out.startswith("{"), f"{command.text}\n{output.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_of_commands_is_run_or_says_why_not(page: Path) -> None:
    assert [command.told for command in commands_in(page) if not command.is_understood] == []
    assert "```sh" not in page.read_text(encoding="utf-8"), "write ```bash"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_fenced_blocks(page: Path) -> None:
    assert INDENTED_COMMAND.findall(page.read_text(encoding="utf-8")) == []
