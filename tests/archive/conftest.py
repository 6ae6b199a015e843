"""Collections of small photographs, a real service, and the commands as a user gives them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.command import main

from ..service.serving import encode, grey_photo, scratched_photo
from ..service.test_server import ServiceProcess
from .scripted_server import ScriptedServer

REPOSITORY = Path(__file__).parents[2]

Archive = Callable[..., tuple[int, str, str]]

PHOTOS = {"cover.jpg", "box 1/album/Schülerin.tif", "box 1/clean.png"}
"""Of `scans`, those that can be restored."""


@pytest.fixture(scope="session")
def service(store: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)}) as service:
        service.wait_until_ready()
        yield service


@pytest.fixture
def address(service: ServiceProcess) -> str:
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A collection: two scratched photos, one without damage, one that is broken, and what is no photo."""
    root = tmp_path / "scans"
    (root / "box 1" / "album").mkdir(parents=True)
    (root / "cover.jpg").write_bytes(encode(scratched_photo(), "JPEG"))
    (root / "box 1" / "album" / "Schülerin.tif").write_bytes(encode(scratched_photo(), "TIFF"))
    (root / "box 1" / "clean.png").write_bytes(encode(grey_photo()))
    (root / "box 1" / "broken.png").write_bytes(encode(scratched_photo())[:200])
    (root / "box 1" / "._cover.jpg").write_bytes(b"what a file system leaves behind")
    (root / "notes.txt").write_text("box 1 was wet", encoding="utf-8")
    return root


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    return tmp_path / "restored"


@pytest.fixture
def archive(capsys: pytest.CaptureFixture[str]) -> Archive:
    """Gives a command; returns exit code, stdout and stderr."""

    def give(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code or 0
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return give


def start_archive(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """In a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "archive", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_of(root: Path) -> dict[str, bytes]:
    """What is in a folder, the journal left out."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "journal" not in path.name
    }
