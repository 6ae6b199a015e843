"""Do what the README tells a newcomer, in a fresh clone with an environment of its own, and say how long it takes.

    python3 scripts/run_readme.py

Every command runs as it stands, on a free port. What trains for hours is made short by the options that its block names
(`scripts/documents.py`); each command is shown as it ran. Needs git, make, curl, some minutes and a gigabyte of disk.
Exit status 1 where a command fails. Standard library only.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from documents import Command, commands_in

REPOSITORY = Path(__file__).resolve().parent.parent
MOST_SECONDS = 1800
PHOTOS = "from training.samples import *; from PIL import Image; import os; os.mkdir('PHOTOS'); " + (
    "[Image.fromarray(crop_sample(name, 256)).save(f'PHOTOS/{name}.png') for name in NAMES]"
)
"""Makes the folder that the README trains on: what scikit-image ships."""


class Stumbled(Exception):
    """A command did not do what the README says; the message says which."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="an empty folder for the clone, which is kept [a temporary one]")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="readme-"))
    try:
        Newcomer(folder / "clone").follow_readme()
    except Stumbled as stumbled:
        print(f"README: {stumbled}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


class Newcomer:
    """Knows nothing but the clone."""

    def __init__(self, clone: Path) -> None:
        self._clone = clone
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._started_seconds = time.monotonic()
        self._running: list[subprocess.Popen[bytes]] = []
        self._has_restored = False

    def follow_readme(self) -> None:
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, self._clone], check=True)
        self._say("cloned")
        try:
            for command in commands_in(self._clone / "README.md"):
                if command.reason:
                    self._say(f"left out, {command.reason}: {command.text.strip()}")
                else:
                    self._follow(command)
        finally:
            self._stop()
        self._say("all done")

    def _follow(self, command: Command) -> None:
        self._prepare(command.text)
        script = f"{command.text.strip()} {command.options}".strip().replace("http://127.0.0.1:8000", self.url)
        began_seconds = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._clone,
            env=os.environ | {"RESTORE_PORT": str(self._port)},
            stdout=2,  # standard output is for what this script says
            start_new_session=True,  # so that what `make` starts can be stopped with it
        )
        self._running.append(process)
        if command.goes_on:
            self._wait_until_ready(process)
        elif process.wait(MOST_SECONDS) != 0:
            raise Stumbled(f"exit status {process.returncode}: {script}")
        self._say(f"{time.monotonic() - began_seconds:.1f} s: {script}")
        self._look_at_first_photo()

    def _prepare(self, text: str) -> None:
        """What the README takes for granted: photographs of one's own."""
        if "scans" in text:
            (self._clone / "scans").mkdir(exist_ok=True)
            shutil.copy(self._clone / "service/static/sample.jpg", self._clone / "scans")
        if "PHOTOS" in text:
            subprocess.run([".venv/bin/python", "-c", PHOTOS], cwd=self._clone, check=True)

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        give_up_at = time.monotonic() + MOST_SECONDS
        while time.monotonic() < give_up_at:
            if process.poll() is not None:
                raise Stumbled(f"the service ended with exit status {process.returncode}")
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise Stumbled(f"no service was ready within {MOST_SECONDS} s")

    def _look_at_first_photo(self) -> None:
        restored, sample = self._clone / "restored.jpg", self._clone / "service/static/sample.jpg"
        if self._has_restored or not restored.exists():
            return
        if restored.read_bytes() == sample.read_bytes():
            raise Stumbled("the sample came back as it was")
        self._has_restored = True
        self._say("the first restored photo is there")

    def _stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)

    def _say(self, message: str) -> None:
        print(f"README, after {time.monotonic() - self._started_seconds:.0f} s: {message}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
